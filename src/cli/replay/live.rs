//! Figures of a play while it goes on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::player::Played;
use super::report::Percentiles;

/// The stretch that bins per second are counted over.
const RATE_OVER: Duration = Duration::from_secs(2);
/// Lags that percentiles are taken of: the newest so many.
const LAGS: usize = 4096;

/// What is known of a play so far.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Bins answered.
    pub bins: u64,
    /// How much of the recording was sent (ns).
    pub sent_ns: i64,
    /// How much there is to send (ns); 0 before the session is open.
    pub end_ns: i64,
    /// Events of the session so far.
    pub notices: u64,
    started: Instant,
    /// When answers came and how many bins each closed, within `RATE_OVER`.
    recent: VecDeque<(Instant, u32)>,
    lags_us: VecDeque<f64>,
    round_trips_us: VecDeque<f64>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            bins: 0,
            sent_ns: 0,
            end_ns: 0,
            notices: 0,
            started: Instant::now(),
            recent: VecDeque::new(),
            lags_us: VecDeque::new(),
            round_trips_us: VecDeque::new(),
        }
    }
}

impl Figures {
    /// Takes in what a play tells.
    pub fn take(&mut self, played: &Played<'_>) {
        match played {
            Played::Opened { end_ns, .. } => {
                self.end_ns = *end_ns;
                self.started = Instant::now();
            }
            Played::Noticed(_) => self.notices += 1,
            Played::Answered { output, round_trip_us, sent_ns } => {
                self.sent_ns = *sent_ns;
                if output.n == 0 {
                    return;
                }
                let now = Instant::now();
                self.bins += u64::from(output.n);
                self.recent.push_back((now, output.n));
                while self.recent.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
                    self.recent.pop_front();
                }
                keep(&mut self.lags_us, output.lag_us.map(|lag| lag.total));
                keep(&mut self.round_trips_us, *round_trip_us);
            }
        }
    }

    /// Bins per second over the last two seconds.
    pub fn bins_per_s(&self) -> f64 {
        let now = Instant::now();
        let within = self.recent.iter().filter(|(at, _)| now - *at <= RATE_OVER);
        let over = (now - self.started).min(RATE_OVER).as_secs_f64();
        within.map(|(_, bins)| u64::from(*bins)).sum::<u64>() as f64 / over.max(1e-3)
    }

    /// The server's lag of the newest answers (µs).
    pub fn lag_us(&self) -> Percentiles {
        Percentiles::of(self.lags_us.iter().copied())
    }

    /// Round trips of the newest answers (µs).
    pub fn round_trip_us(&self) -> Percentiles {
        Percentiles::of(self.round_trips_us.iter().copied())
    }

    /// The figures in a line.
    pub fn line(&self) -> String {
        let lag = self.lag_us();
        format!(
            "{:.0} bins/s · lag p50 {} p99 {} · round trip p50 {}",
            self.bins_per_s(),
            ms(lag.p50),
            ms(lag.p99),
            ms(self.round_trip_us().p50)
        )
    }
}

fn keep(lags: &mut VecDeque<f64>, lag: Option<f64>) {
    lags.extend(lag);
    while lags.len() > LAGS {
        lags.pop_front();
    }
}

/// Microseconds as milliseconds, for people.
pub fn ms(us: f64) -> String {
    format!("{:.2} ms", us / 1e3)
}
