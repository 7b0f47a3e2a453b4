//! The demo's terminal: lines that are drawn in place, or plain ones now and then where nobody watches.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often the screen is drawn.
pub const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where the demo draws.
#[derive(Debug)]
pub enum Screen {
    /// In place.
    Terminal {
        /// Draws the lines together.
        all: MultiProgress,
        /// One per line.
        lines: Vec<ProgressBar>,
    },
    /// Line after line.
    Plain {
        /// When the last one was written.
        told: Instant,
    },
}

impl Screen {
    /// The screen that stdout is.
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            let target = ProgressDrawTarget::stdout_with_hz(10);
            Screen::Terminal { all: MultiProgress::with_draw_target(target), lines: Vec::new() }
        } else {
            Screen::Plain { told: Instant::now() }
        }
    }

    /// Shows `lines` in place, or `plain` if it is time for it.
    pub fn draw(&mut self, lines: &[String], plain: impl FnOnce() -> String, out: &mut impl Write) {
        match self {
            Screen::Terminal { all, lines: bars } => {
                while bars.len() < lines.len() {
                    let style = ProgressStyle::with_template("{wide_msg}").expect("a template written here");
                    bars.push(all.add(ProgressBar::new_spinner().with_style(style)));
                }
                bars.iter().zip(lines).for_each(|(bar, line)| bar.set_message(line.clone()));
            }
            Screen::Plain { told } if told.elapsed() >= LINE_EVERY => {
                *told = Instant::now();
                // The reader may be gone; the demo goes on.
                let _ = writeln!(out, "{}", plain());
            }
            Screen::Plain { .. } => {}
        }
    }

    /// Leaves the last lines where they are.
    pub fn end(&self) {
        if let Screen::Terminal { lines, .. } = self {
            lines.iter().for_each(ProgressBar::abandon);
        }
    }
}
