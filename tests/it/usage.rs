//! What a process uses, as the kernel tells.

/// Resident memory (kB) and processor time so far (s) of a process.
pub fn usage(pid: u32) -> (u64, f64) {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a running process");
    let status = of("status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let rss_kb = rss.trim().trim_end_matches(" kB").parse().expect("kB");
    let stat = of("stat");
    // Behind the name in brackets, utime and stime are the 12th and 13th field, in ticks of 10 ms.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (rss_kb, (ticks(11) + ticks(12)) / 100.0)
}
