//! From the journal to the library, exactly once.
//! One transaction of the library takes a transfer and sets the run's mark; only then the journal's rows go. Killed in
//! between, the rows are still there and the mark says that they count for nothing. There is one mover at a time.

use super::error::StoreError;
use super::library::Taken;
use super::transfer::Transfer;
use super::{Store, StoreOp};
use crate::domain::ids::RunId;
use crate::store::run::Owner;

/// What one transaction of the library takes, so that appends need not wait long for it.
const PIECE_BYTES: usize = 1024 * 1024;

/// What a start found left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs whose tails were in the journal.
    pub runs: usize,
    /// Bytes of those tails.
    pub bytes: u64,
    /// Runs that an earlier start had left open.
    pub interrupted: u64,
}

/// What is to be moved next of a run.
pub(super) struct Piece {
    pub(super) sum: Transfer,
    /// Whether the journal had no more rows of the run.
    pub(super) is_last: bool,
    bytes: usize,
}

impl Store {
    /// Moves whatever the journal holds of these runs.
    /// Errors: the first that occurred; what could not be moved stays in the journal, the other runs are moved.
    pub async fn move_runs(&self, runs: &[RunId]) -> Result<(), StoreError> {
        let mut waiting = runs.to_vec();
        let mut failed = None;
        while !waiting.is_empty() {
            let (mut transfers, mut bytes, mut done) = (Vec::new(), 0, Vec::new());
            let mut later = Vec::new();
            for run in waiting {
                if bytes >= PIECE_BYTES {
                    later.push(run);
                    continue;
                }
                let piece = self.next_piece(run).await?;
                if !piece.is_last {
                    later.push(run);
                }
                if piece.sum.to > piece.sum.from {
                    bytes += piece.bytes;
                    transfers.push((run, piece.sum));
                } else {
                    // Nothing new, but rows that were moved before may still lie there.
                    done.push((run, piece.sum.to));
                }
            }
            let taken = self.timed(StoreOp::Move, self.take_all(&transfers, &mut failed)).await;
            for ((run, sum), taken) in transfers.iter().zip(taken) {
                match taken {
                    Some(Taken::Now) => done.push((*run, sum.to)),
                    Some(Taken::Already { moved_to }) => {
                        done.push((*run, moved_to));
                        if moved_to < sum.to && !later.contains(run) {
                            later.push(*run);
                        }
                    }
                    Some(Taken::NoRun) => {
                        // It is the library that the journal feeds, or there would be no connection to it.
                        tracing::warn!(
                            run.id = %run,
                            rows.to = sum.to,
                            bins = sum.bins,
                            "the library has gone back to before this run began, as by the restore of a dump; what the \
                             journal holds of the run is dropped"
                        );
                        done.push((*run, sum.to));
                    }
                    None => later.retain(|other| other != run),
                }
            }
            self.journal.trim(&done).await?;
            waiting = later;
        }
        if let Err(error) = self.journal.file().cut_wal().await {
            tracing::debug!(%error, "the write-ahead log could not be cut just now");
        }
        failed.map_or(Ok(()), Err)
    }

    /// All in one transaction; if the library refuses, each in its own, so that one bad transfer fails alone.
    async fn take_all(
        &self,
        transfers: &[(RunId, Transfer)],
        failed: &mut Option<StoreError>,
    ) -> Vec<Option<Taken>> {
        if transfers.is_empty() {
            return Vec::new();
        }
        match self.library.take(transfers).await {
            Ok(taken) => return taken.into_iter().map(Some).collect(),
            Err(error @ (StoreError::Database(_) | StoreError::Inconsistent { .. })) => {
                tracing::error!(%error, "the library refused some transfers; trying them one by one");
            }
            Err(error) => {
                failed.get_or_insert(error);
                return vec![None; transfers.len()];
            }
        }
        let mut taken = Vec::with_capacity(transfers.len());
        for transfer in transfers {
            match self.library.take(std::slice::from_ref(transfer)).await {
                Ok(one) => taken.extend(one.into_iter().map(Some)),
                Err(error) => {
                    tracing::error!(run.id = %transfer.0, %error, "the library refused a transfer");
                    failed.get_or_insert(error);
                    taken.push(None);
                }
            }
        }
        taken
    }

    /// What is to be moved next of a run.
    pub(super) async fn next_piece(&self, run: RunId) -> Result<Piece, StoreError> {
        let mark = self.library.mark(run).await?.unwrap_or(0);
        let rows = self.journal.rows(run, mark, PIECE_BYTES).await?;
        let bytes: usize = rows.iter().map(|row| row.records.len()).sum();
        Ok(Piece { sum: Transfer::of(run, mark, &rows), is_last: bytes < PIECE_BYTES, bytes })
    }

    /// Moves every tail that an earlier start left in the journal, then calls the runs that it left open interrupted.
    pub async fn recover(&self) -> Result<Recovered, StoreError> {
        let (runs, bytes) = (self.journal.runs(), self.journal.bytes());
        self.move_runs(&runs).await?;
        let interrupted = self.library.interrupt(self.journal.owner()).await?;
        Ok(Recovered { runs: runs.len(), bytes, interrupted })
    }

    /// Calls the runs that this start left open interrupted: nothing more will come. Their tails must be moved.
    pub async fn end(&self) -> Result<u64, StoreError> {
        let Owner { journal, boot } = self.journal.owner().clone();
        self.library.interrupt(&Owner { journal, boot: boot + 1 }).await
    }
}
