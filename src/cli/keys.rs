//! `latentd keys`: API keys, in the library of a server that may be running meanwhile.

use std::process::ExitCode;

use super::Keys;
use crate::access::register::{self, RegisterError};
use crate::config::{Config, process_env};
use crate::domain::time::Stamp;
use crate::lifecycle::server::postgres_at;
use crate::store::key::KeyRecord;
use crate::store::{FILE_NAME, Library, library_at};

/// Carries the command out.
pub fn run(command: Keys) -> ExitCode {
    let (Keys::Create { library, .. } | Keys::List { library } | Keys::Revoke { library, .. }) = &command;
    let config = match Config::read(&library.flags, &process_env) {
        Ok(config) => config,
        Err(error) => return super::fail(&error),
    };
    super::in_runtime(async {
        let at = postgres_at(&config);
        let may_be_made = matches!(command, Keys::Create { .. });
        let file = config.data.join(FILE_NAME);
        if at.is_none() && !may_be_made && !file.exists() {
            return super::fail(&NoLibrary(file));
        }
        let library = match library_at(&config.data, config.wal_limit_bytes, at.as_ref()).await {
            Ok(library) => library,
            Err(error) => return super::fail(&error),
        };
        let done = carry_out(command, &*library).await;
        library.close().await;
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::fail(&error),
        }
    })
}

/// There is no file to look for keys in.
#[derive(Debug, thiserror::Error)]
#[error("there is no library {}; --data names the server's data directory", .0.display())]
struct NoLibrary(std::path::PathBuf);

async fn carry_out(command: Keys, library: &dyn Library) -> Result<(), RegisterError> {
    let now_ns = Stamp::now().unix_ns;
    match command {
        Keys::Create { name, scopes, .. } => {
            let (key, secret) = register::create(library, &name, scopes, now_ns).await?;
            eprintln!("key {} ({}), id {}; it is shown this once:", key.name, key.scopes, key.id);
            // The only line on standard output, so that a script can take it.
            println!("{}", secret.show());
        }
        Keys::List { .. } => print!("{}", table(&library.keys().await?, now_ns)),
        Keys::Revoke { key, .. } => {
            let key = register::revoke(library, &key, now_ns).await?;
            println!("revoked: key {} ({}), id {}", key.name, key.scopes, key.id);
        }
    }
    Ok(())
}

/// One line for each key, the oldest first.
fn table(keys: &[KeyRecord], now_ns: i64) -> String {
    let width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0).max(4);
    let head = format!("{:<32}  {:<width$}  {:<17}  {:>8}  state\n", "id", "name", "scopes", "age");
    let lines = keys.iter().map(|key| {
        let state = match key.revoked_ns {
            None => "holds".into(),
            Some(revoked_ns) => format!("revoked {} ago", age(revoked_ns, now_ns)),
        };
        let (scopes, age) = (key.scopes.to_string(), age(key.created_ns, now_ns));
        format!("{}  {:<width$}  {scopes:<17}  {age:>8}  {state}\n", key.id, key.name)
    });
    std::iter::once(head).chain(lines).collect()
}

/// The largest whole unit of the time since.
fn age(then_ns: i64, now_ns: i64) -> String {
    let seconds = now_ns.saturating_sub(then_ns).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::Scopes;
    use crate::domain::ids::{Digest, KeyId};

    #[test]
    fn the_table_shows_every_key_and_nothing_of_its_secret() {
        let key = |name: &str, revoked_ns| KeyRecord {
            id: KeyId::new(),
            name: name.into(),
            scopes: Scopes::all(),
            digest: Digest([0xab; 32]),
            created_ns: 0,
            revoked_ns,
        };
        let now_ns = 90_000 * 1_000_000_000;
        let table = table(&[key("rig-3", None), key("old", Some(now_ns - 61_000_000_000))], now_ns);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("id ") && lines[0].ends_with("state"), "{table}");
        assert!(lines[1].contains("  rig-3  stream,read,admin       1 d  holds"), "{table}");
        assert!(lines[2].ends_with("revoked 1 min ago"), "{table}");
        assert!(!table.contains("abab"), "{table}");
    }
}
