//! Replay: what a run took in, done again to an aligner that the server's own makers make of the run's request.

use std::sync::Arc;

use latentd::app::models::Models;
use latentd::app::way_in::{aligner, way_in};
use latentd::batch::{Pool, PoolConfig, Silent};
use latentd::engine::{Engine, OrtEngine, library};
use latentd::metrics::Metrics;
use latentd::registry::{Options, Registry};
use latentd::session::replay;
use latentd::signal::step::{Bin, Step};
use latentd::store::{NoMetrics, Store};
use latentd::wire::v1;

use super::Setup;

/// The bins of a run, from what it took in. The server has stopped: everything is in the library.
pub async fn replayed(setup: &Setup, info: &v1::RunInfo) -> Vec<Bin> {
    let ask = info.resolved.as_ref().expect("what was asked for");
    let versions = ask.versions.clone().into_iter().collect();
    let plan = models(setup).plan(&ask.pipeline, &versions).expect("the run's versions are still there");
    let (open, way) = way_in(&plan, ask).expect("it resolves");
    let (mut aligner, _) = aligner(&plan, &open, way).expect("signals that fit");
    let store = Store::embedded(&setup.data(), 64 << 20, Arc::new(NoMetrics)).await.expect("the store opens");
    let run = info.run.parse().expect("a run's id");
    let mut intake = store.intake(run).await.expect("the library answers").expect("the run");
    let mut steps = Vec::new();
    while let Some(taking) = intake.next().await.expect("the library answers") {
        replay::again(&mut aligner, &open.signals, taking, &mut steps).expect("it is taken again");
    }
    store.close().await;
    steps.into_iter().filter_map(|step| if let Step::Bin(bin) = step { Some(bin) } else { None }).collect()
}

/// The models of a server's repository, in this process.
fn models(setup: &Setup) -> Models {
    let path = library::find(None).unwrap_or_else(|error| panic!("{error}"));
    let engine: Arc<dyn Engine> = Arc::new(OrtEngine::open(&path).unwrap_or_else(|error| panic!("{error}")));
    let pool = Arc::new(Pool::start(1, PoolConfig::default(), Arc::new(Silent)).expect("threads"));
    let registry = Registry::new(Options::new(setup.models()), Arc::clone(&engine), Arc::clone(&pool));
    registry.first_scan();
    Models::new(Arc::new(registry), pool, engine, Arc::new(Metrics::new()))
}
