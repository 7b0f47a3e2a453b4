//! Sessions and frames: what a rig may ask.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures::{Stream, stream};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::models::Models;
use super::way_in::{aligner, fills_rows, keeps_data, no_randomness, source_delay, statics, way_in};
use super::{beside, is_large};
use crate::domain::caller::Caller;
use crate::domain::ids::{RunId, SessionId};
use crate::domain::output::OutputSpec;
use crate::domain::settings::{Ack, Open, ResetScope};
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::health::Health;
use crate::pipeline::journey::Journey;
use crate::pipeline::plan::Plan;
use crate::recorder::Recorder;
use crate::session::switching::{pinned, state_of};
use crate::session::{Attachment, Made, Session, Sink, Table, Writer};
use crate::store::run::{Pinned, RunHead};
use crate::trace::Tracer;
use crate::wire::open::{output_message, resolved};
use crate::wire::told::Told;
use crate::wire::v1;

/// How often sessions are looked over for silence.
const SWEEP: Duration = Duration::from_secs(1);

/// What this family needs of the configuration.
#[derive(Clone, Debug)]
pub struct LiveLimits {
    /// Open sessions.
    pub max_sessions: usize,
    /// Unanswered frames that a rig may have.
    pub window: usize,
    /// Messages held for a slow subscriber.
    pub subscriber_buffer: usize,
    /// Invalid bins in a row before the state starts anew.
    pub invalid_limit: u32,
    /// A stream silent for so long is dead.
    pub dead_after: Duration,
    /// Address that open's answer names.
    pub endpoint: String,
}

/// Sessions and frames.
pub struct Live {
    models: Arc<Models>,
    recorder: Recorder,
    limits: LiveLimits,
    tracer: Tracer,
    pub(super) table: Table,
    /// Tasks that sessions need: waits, durable answers.
    tasks: TaskTracker,
}

impl Live {
    /// No session is open yet.
    pub fn new(models: Arc<Models>, recorder: Recorder, limits: LiveLimits, tracer: Tracer) -> Self {
        let table = Table::new(limits.max_sessions);
        Self { models, recorder, limits, tracer, table, tasks: TaskTracker::new() }
    }

    /// Opens a session, or with `dry_run` only says what it would be. One whose caller has left by then (its deadline
    /// passed, its connection broke) is closed again.
    /// Errors: `not_found` (pipeline, version), `invalid`, `overloaded`, `unavailable`, `unsupported`.
    pub async fn open(self: &Arc<Self>, who: &Caller, ask: v1::OpenRequest) -> Result<v1::OpenReply, Fault> {
        let (give, take) = oneshot::channel();
        let mut opening = Opening { live: Arc::clone(self), take };
        // A task of its own: a caller that leaves must not leave a run without a session.
        let (live, who) = (Arc::clone(self), who.clone());
        self.tasks.spawn(async move {
            let opened = live.open_whole(&who, ask).await;
            if let Err(Ok(opened)) = give.send(opened) {
                live.close_unheard(&opened).await;
            }
        });
        (&mut opening.take).await.map_err(|_| Fault::panicked())?
    }

    /// Closes a session that nobody was told of.
    async fn close_unheard(&self, opened: &v1::OpenReply) {
        let Ok(session) = self.table.get(&opened.session) else { return };
        if self.table.remove(session.id).is_some() {
            tracing::info!(session.id = %session.id, "session closed: its opener had left");
            session.close("its opener had left before it was told of it", true).await;
        }
    }

    async fn open_whole(&self, who: &Caller, ask: v1::OpenRequest) -> Result<v1::OpenReply, Fault> {
        self.table.has_room()?;
        let versions: BTreeMap<String, u32> = ask.versions.clone().into_iter().collect();
        let plan = Arc::new(self.models.plan(&ask.pipeline, &versions)?);
        let (open, way) = way_in(&plan, &ask)?;
        let (aligner, warnings) = aligner(&plan, &open, way)?;
        fills_rows(&plan, &aligner)?;
        let outputs = plan.outputs_after(|input| aligner.delay_ms(input));
        let statics = statics(&plan, &open, &aligner)?;
        let wanted = plan.outputs_named(&open.outputs)?;
        let recorded = match &open.record {
            Some(record) => plan.outputs_named(&record.outputs)?,
            None => vec![false; plan.outputs.len()],
        };
        let width_ns = aligner.width_ns();
        let width = Duration::from_nanos(width_ns.get());
        let health = Health::new(width_ns, plan.watched_inputs(&aligner), plan.watched_latents());
        let (places, ingest) = self.models.admit(&plan, width, &form(&open))?;

        let session = SessionId::new();
        let run = open.record.as_ref().map(|_| RunId::new());
        let tokens = tokens(&open)?;
        let writers: HashMap<String, String> =
            open.signals.iter().map(|spec| spec.name.to_string()).zip(tokens.iter().cloned()).collect();
        let names = plan.outputs.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        let names = names.map(|(spec, _)| spec.name.clone()).collect();
        let pins = plan.stages.iter().map(|stage| (stage.name.to_string(), stage.version.version.0));
        let opened = v1::OpenReply {
            session: session.to_string(),
            run: run.map(|run| run.to_string()),
            writers: if open.dry_run { HashMap::new() } else { writers },
            endpoint: self.limits.endpoint.clone(),
            window: self.limits.window as u32,
            outputs: outputs.iter().map(output_message).collect(),
            pinned: pinned(&plan),
            resolved: Some(resolved(&ask, &open, names, pins)),
            warnings,
        };
        if open.dry_run {
            return Ok(v1::OpenReply { session: String::new(), run: None, ..opened });
        }
        let recorder = match run {
            Some(run) => {
                let head = self.run_head(
                    run,
                    session,
                    &HeadParts {
                        plan: &plan,
                        open: &open,
                        opened: &opened,
                        outputs: &outputs,
                        recorded: &recorded,
                        width_ns,
                    },
                );
                let recorder = self.recorder.open(head);
                // The run is there for queries and survives a crash before the session is told of.
                let begun = recorder.begun();
                recorder.durable(begun).await.map_err(|_| {
                    let why = self.recorder.writing_fault().unwrap_or_default();
                    Fault::new(
                        Kind::Unavailable,
                        format!("the journal cannot be written, so that nothing can be recorded: {why}"),
                    )
                })?;
                Some(recorder)
            }
            None => None,
        };
        let source_delay = source_delay(&plan, &open);
        let keeps_data = open.signals.iter().map(|spec| keeps_data(spec.kind, spec.role, &open)).collect();
        let now = Stamp::now();
        let made = Made {
            id: session,
            run,
            opened: opened.clone(),
            signals: open.signals,
            outputs,
            wanted,
            recorded,
            keeps_data,
            aligner,
            journey: Journey::new(Arc::clone(&plan), statics, now.instant),
            health,
            recorder,
            places,
            ingest,
            width,
            source_delay,
            deadline: open.deadline_ns.map(Duration::from_nanos),
            ack: open.ack,
            invalid_limit: self.limits.invalid_limit,
            window: self.limits.window,
            subscriber_buffer: self.limits.subscriber_buffer,
            idle_timeout: Duration::try_from_secs_f64(open.idle_timeout_s).unwrap_or(Duration::MAX),
            meter: self.models.meter(&plan, &open.policies),
            tracer: self.tracer.clone(),
        };
        let made = Session::new(made, tokens, now);
        if let Err(fault) = self.table.add(Arc::clone(&made)) {
            made.close("the server had no room for it", true).await;
            return Err(fault);
        }
        if open.ack == Ack::Durable {
            self.tasks.spawn(Arc::clone(&made).give_durable());
        }
        if plan.inputs.len() > 1 {
            self.tasks.spawn(close_waited_bins(Arc::clone(&made)));
        }
        tracing::info!(
            session.id = %session,
            pipeline.name = %plan.name,
            request.id = %who.request_id,
            recorded = run.is_some(),
            "session opened"
        );
        Ok(opened)
    }

    fn run_head(&self, run: RunId, session: SessionId, parts: &HeadParts<'_>) -> RunHead {
        let HeadParts { plan, open, opened, outputs, recorded, width_ns } = *parts;
        let pinned = plan.stages.iter().map(|stage| Pinned {
            stage: stage.name.clone(),
            model: stage.version.model.clone(),
            version: stage.version.version,
            digest: stage.version.digest,
        });
        let resolved = opened.resolved.as_ref().map(crate::wire::json::write).unwrap_or_default();
        RunHead {
            run,
            session,
            rig: open.rig.clone(),
            pipeline: open.pipeline.clone(),
            pinned: pinned.collect(),
            resolved: String::from_utf8(resolved).unwrap_or_default(),
            outputs: outputs.to_vec(),
            recorded: outputs.iter().map(|spec| spec.number).filter(|&at| recorded[at as usize]).collect(),
            signals: open.signals.iter().map(|spec| spec.name.clone()).collect(),
            t0_ns: open.t0_ns,
            width_ns: width_ns.get(),
            first_bin: 0,
            started_ns: Stamp::now().unix_ns,
            engine: self.models.fingerprint().to_owned(),
            tags: open.tags.clone(),
            notes: open.notes.clone(),
            owner: Default::default(),
        }
    }

    /// One frame by HTTP: consumed, stepped, answered. Errors: by the table of `docs/API.md`.
    pub async fn frame(
        &self,
        who: &Caller,
        session: &str,
        frame: v1::Frame,
        received: Stamp,
    ) -> Result<v1::Output, Fault> {
        let session = self.table.get(session)?;
        let (name, seq) = (frame.signal.clone(), frame.seq);
        let (give, answer) = oneshot::channel();
        let turn = session.turn().await;
        let is_long = session.is_long(1).unwrap_or_else(|| is_large(data_bytes(&frame)));
        let (fed, span) = (Arc::clone(&session), who.span);
        beside(is_long, move || {
            fed.feed([(frame, Sink::Once(give))], Writer::Caller, received, span);
            // Here, so that a caller that leaves does not let the next one overtake.
            drop(turn);
            Ok(())
        })
        .await?;
        answer.await.map_err(|_| {
            let detail = format!("session {} ended before this frame was answered", session.id);
            Fault::new(Kind::Internal, detail).about(&name, seq)
        })?
    }

    /// Makes a stream a writer. Errors: `not_found`, `conflict`, `unavailable`.
    pub(super) fn attach(&self, who: &Caller, attach: &v1::Attach) -> Result<Attachment, Fault> {
        self.table.get(&attach.session)?.attach(
            &attach.writer,
            attach.signal.as_deref(),
            who.span,
            Stamp::now(),
        )
    }

    /// What a session gives, from now on, to one who listens; the last of it says why it ends.
    /// Errors: `not_found` (session, output), `invalid` (a rate that is none), `unavailable`.
    pub fn subscribe(
        &self,
        _: &Caller,
        ask: &v1::SubscribeRequest,
    ) -> Result<impl Stream<Item = Told> + Send + use<>, Fault> {
        let session = self.table.get(&ask.session)?;
        let (place, is_first) = session.subscribe(&ask.outputs, ask.max_hz)?;
        if is_first {
            self.tasks.spawn(session.hand_out());
        }
        Ok(stream::unfold(place, |place| async move { Some((place.next().await?, place)) }))
    }

    /// One probe of a device's clock by HTTP. `received`: not before it came. Errors: `not_found` (session, clock),
    /// `invalid` (stamps that were never answered), `unavailable`.
    pub fn probe(
        &self,
        _: &Caller,
        session: &str,
        ask: &v1::ProbeRequest,
        received: Stamp,
    ) -> Result<v1::ProbeReply, Fault> {
        self.table.get(session)?.probe(ask, received)
    }

    /// Starts a session's state anew. Errors: `not_found`, `invalid` (scope), `conflict` (a past bin).
    pub fn reset(&self, _: &Caller, session: &str, ask: &v1::ResetRequest) -> Result<v1::ResetReply, Fault> {
        let session = self.table.get(session)?;
        let scope = match ask.scope.as_str() {
            "" => ResetScope::Model,
            word => ResetScope::parse(word)
                .ok_or_else(|| Fault::unknown_word("scope", word, &ResetScope::words()))?,
        };
        let at_bin = session.reset(scope, ask.at_bin, Stamp::now())?;
        Ok(v1::ResetReply { at_bin })
    }

    /// Lets another version take over in a stage between two bins.
    /// Errors: `not_found` (session, stage, version), `invalid` (it does not fit, its fault), `conflict` (a past bin),
    /// `overloaded`, `unavailable`.
    pub async fn switch(
        &self,
        who: &Caller,
        session: &str,
        ask: v1::SwitchRequest,
    ) -> Result<v1::SwitchReply, Fault> {
        let session = self.table.get(session)?;
        let state = state_of(&ask.state)?;
        let (models, request_id) = (Arc::clone(&self.models), who.request_id.clone());
        // Not here: it waits for its turn, compiles a plan, allocates a row, and waits for whoever feeds the session.
        beside(true, move || {
            let at_bin = session.switch(&ask.stage, ask.at_bin, Stamp::now(), |running| {
                models.successor(running, &ask.stage, ask.version, state)
            })?;
            // Said here, since the caller may have left by now.
            tracing::info!(
                session.id = %session.id, request.id = %request_id, pipeline.stage = ask.stage,
                model.version = ask.version, bin = at_bin, "a version takes over"
            );
            Ok(v1::SwitchReply { at_bin })
        })
        .await
    }

    /// Closes a session after every frame that came was answered. Errors: `not_found`.
    pub async fn close(&self, who: &Caller, session: &str) -> Result<v1::CloseReply, Fault> {
        let session = self.table.get(session)?;
        let id = session.id;
        let session = self.table.remove(id).ok_or_else(|| {
            Fault::new(
                Kind::NotFound,
                format!("session {} is being closed already; its run stays", session.id),
            )
        })?;
        // A task of its own: a caller that leaves must not leave the session half closed.
        let closing = self.tasks.spawn(async move { session.close("closed by its rig", true).await });
        let summary = closing.await.map_err(|_| Fault::panicked())?;
        tracing::info!(session.id = %id, request.id = %who.request_id, bins = summary.bins, "session closed");
        Ok(summary)
    }

    /// One session. Errors: `not_found`.
    pub fn get(&self, _: &Caller, session: &str) -> Result<v1::SessionInfo, Fault> {
        Ok(self.table.get(session)?.info(Stamp::now(), self.limits.dead_after))
    }

    /// Whether the session is open. Errors: `not_found`.
    pub fn knows(&self, _: &Caller, session: &str) -> Result<(), Fault> {
        self.table.get(session).map(drop)
    }

    /// All open sessions, oldest first.
    pub fn list(&self, _: &Caller) -> v1::SessionsReply {
        let now = Stamp::now();
        let sessions =
            self.table.all().iter().map(|session| session.info(now, self.limits.dead_after)).collect();
        v1::SessionsReply { sessions, next: None }
    }

    /// Why the journal cannot be written just now, if so.
    pub fn writing_fault(&self) -> Option<String> {
        self.recorder.writing_fault()
    }

    /// Why nothing goes from the journal to the library just now, if so.
    pub fn moving_fault(&self) -> Option<String> {
        self.recorder.moving_fault()
    }

    /// Looks over the sessions for ever: which are detached, which have been silent for too long and are closed, which
    /// versions they have left behind.
    pub async fn sweep(&self) {
        let mut every = tokio::time::interval(SWEEP);
        loop {
            every.tick().await;
            let now = Instant::now();
            for session in self.table.all() {
                let outgone = session.outgone();
                if !outgone.is_empty() {
                    // Not here: the last of a large model takes its time to go.
                    self.tasks.spawn_blocking(move || drop(outgone));
                }
                session.note_detached(now, self.limits.dead_after);
                if session.is_idle_too_long(now) && self.table.remove(session.id).is_some() {
                    tracing::info!(session.id = %session.id, "session closed: silent for longer than its idle_timeout_s");
                    self.tasks.spawn(async move {
                        session.close("silent for longer than its idle_timeout_s", true).await
                    });
                }
            }
        }
    }

    /// Opens no more sessions, answers what came to those that are open, and tells their streams why they end.
    pub async fn drain(&self) {
        let sessions = self.table.shut();
        self.tasks.close();
        futures::future::join_all(
            sessions.iter().map(|session| session.close("the server is draining", false)),
        )
        .await;
        sessions.iter().for_each(|session| drop(self.table.remove(session.id)));
        self.tasks.wait().await;
    }
}

/// An open that is being served, for whoever waits for its answer.
struct Opening {
    live: Arc<Live>,
    take: oneshot::Receiver<Result<v1::OpenReply, Fault>>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        // From here on the task that opens sees that nobody waits; what it gave before that was heard, or lies here.
        self.take.close();
        if let (Ok(Ok(opened)), Ok(runtime)) = (self.take.try_recv(), tokio::runtime::Handle::try_current()) {
            let live = Arc::clone(&self.live);
            self.live.tasks.spawn_on(async move { live.close_unheard(&opened).await }, &runtime);
        }
    }
}

/// Bytes of a frame's data that are laid out anew on their way into bins.
pub(super) fn data_bytes(frame: &v1::Frame) -> usize {
    frame.tensor.as_ref().map_or(0, |tensor| tensor.raw.len() + size_of_val(&tensor.values[..]))
}

/// Closes bins when they have waited for long enough, until the session is gone; runs for as long as a session with
/// several inputs is open.
async fn close_waited_bins(session: Arc<Session>) {
    while session.has_waited().await {
        let late = Arc::clone(&session);
        let expire = move || {
            late.expire(Stamp::now());
            Ok(())
        };
        // Why ignored: a session that panics has ended itself, and said so.
        let _ = beside(session.is_long(1).unwrap_or(true), expire).await;
    }
}

/// What the cost of a session's ingest depends on, beside its pipeline.
fn form(open: &Open) -> String {
    let signals = open.signals.iter().map(|spec| {
        let rate = spec.rate.map(|rate| (rate.num, rate.den));
        let channels = spec.channels.len();
        format!(
            "{:?} {:?} {channels} {rate:?} {:?} {}",
            spec.kind,
            spec.role,
            spec.bin_ms,
            keeps_data(spec.kind, spec.role, open)
        )
    });
    signals.collect::<Vec<_>>().join(", ")
}

/// What a run's head is made of.
struct HeadParts<'a> {
    plan: &'a Plan,
    open: &'a Open,
    opened: &'a v1::OpenReply,
    outputs: &'a [OutputSpec],
    recorded: &'a [bool],
    width_ns: NonZeroU64,
}

/// Writer tokens by signal: one for all, but for signals with a writer of their own.
fn tokens(open: &Open) -> Result<Vec<String>, Fault> {
    let shared = random_token()?;
    open.signals
        .iter()
        .map(|spec| if spec.own_writer { random_token() } else { Ok(shared.clone()) })
        .collect()
}

fn random_token() -> Result<String, Fault> {
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::open::{PipelineDefaults, resolve};

    #[test]
    fn signals_whose_rows_are_of_another_width_cost_another_ingest() {
        let form_of = |bin_ms: f64| {
            let channel = v1::Channel { name: "a".into(), ..Default::default() };
            let spikes = v1::SignalSpec {
                name: "spikes".into(),
                r#type: "binned".into(),
                channels: vec![channel],
                bin_ms: Some(bin_ms),
                ..Default::default()
            };
            let ask = v1::OpenRequest { signals: vec![spikes], ..Default::default() };
            form(&resolve(&ask, &PipelineDefaults::default()).expect("it is whole"))
        };
        assert_eq!(form_of(20.0), form_of(20.0));
        assert_ne!(form_of(1.0), form_of(20.0));
    }
}
