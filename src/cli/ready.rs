//! `latentd ready`: what a container's health check asks with, where there is no other program to ask with.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::args::ReadyArgs;
use crate::config::{Config, process_env};
use crate::wire::{json, v1};

/// How long the server may take for its answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks once, and says what it was told.
pub fn run(args: &ReadyArgs) -> ExitCode {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => match Config::read(&[], &process_env) {
            Ok(config) => format!("http://{}", reached(config.http)),
            Err(error) => return super::fail(&error),
        },
    };
    super::in_runtime(async {
        match ask(&url).await {
            Ok(reply) => told(&reply),
            Err(error) => super::fail(error.as_ref()),
        }
    })
}

/// Where a server that binds `address` is reached from its own host.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(url: &str) -> Result<v1::ReadyReply, Box<dyn std::error::Error>> {
    let client = reqwest::Client::builder().timeout(LIMIT).no_proxy().build()?;
    let answer = client.get(format!("{url}/readyz")).send().await?;
    let body = answer.bytes().await?;
    json::read(&body).map_err(|fault| format!("{url}/readyz answered what is {}", fault.detail).into())
}

/// One line of what is so, then what is amiss.
fn told(reply: &v1::ReadyReply) -> ExitCode {
    let mut lines =
        if reply.ready { "ready\n".into() } else { format!("not ready: {}\n", reply.reasons.join("; ")) };
    for sentence in &reply.degraded {
        lines.push_str(&format!("degraded: {sentence}\n"));
    }
    // Why ignored: there may be nobody to read it; the exit code says it all the same.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    if reply.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_binds_every_address_is_asked_on_the_loopback() {
        let told = |address: &str| reached(address.parse().unwrap()).to_string();
        assert_eq!(told("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(told("[::]:80"), "[::1]:80");
        assert_eq!(told("10.1.2.3:8080"), "10.1.2.3:8080");
    }
}
