//! All tests that look at latentd from outside its rooms: one binary, linked once.

mod access; // API keys, tried on every call
mod arrow_frames; // frames in columns
mod backup; // a back-up, made and restored
mod beside; // sessions that are fed beside the runtime's threads
mod broadband; // many electrodes, from i16 to counts
mod browsers; // which web pages may use it
mod check; // raw trials of models, and the first place that differs
mod clock; // probes, drift, steps, ages, and what replay makes of them
mod continuous; // sampled signals through a chain
mod deadlines; // lag, silence, the end
mod deploy; // what an operator runs it by
mod devices; // counters, indices and stamps that go wrong
mod durability; // what a rig was told against what is found afterwards
mod engine; // a failing engine, in process
mod examples; // the rigs of examples/
mod faults; // every kind of fault, on every road
mod footprint; // memory
mod gaps; // samples that never came
mod golden; // numbers against numbers that others computed
mod half_closed; // rigs that end their side at once
mod health; // whether it is still what the model learnt
mod hippocampus; // spikes that arrive jittered
mod infer; // one-shot inference
mod late; // data before, again, too late; a backlog
mod layers; // who may know whom
mod library; // the database file, looked at from beside
mod live; // sessions and frames: the main road
mod logs; // what the log says of a call
mod many; // many models, and big ones
mod measured; // every metric, moved by a real load
mod model_based; // random sessions against a plain model
mod montage; // channels that are not the model's
mod nan; // what is not finite, in and out
mod openapi; // the document against real answers
mod order; // which frame comes next
mod other_library; // a journal feeds one library, whatever lies where that was
mod outputs; // values of a run in every form
mod overload; // more sessions than there is room for
mod parity; // every road answers alike
mod pieces; // requests that come in pieces
mod postgres; // a library in PostgreSQL: there, away, silent, shared
mod preprocess; // what a chain does to a stream
mod recordings; // what the tests stream
mod released; // the schema, against the released one
mod reload; // a repository that changes under streaming sessions
mod resets; // the state starting anew
mod rig; // rigs that play recordings and keep account
mod road; // a hostile road between rig and server
mod signals; // what a rig may send
mod sixty_four; // 64 rigs in real time
mod stalls; // silence, clocks, restarts
mod stamps; // stamps of 19 digits
mod start; // starts that must fail
mod subscribe; // who listens, and what it costs
mod support; // the real binary, small models, rigs
mod switch; // another version of a stage, between two bins
mod thresholds; // of crossings, from run to run
mod traces; // what a collector gets
mod unplugged; // one of two amplifiers away for seconds
mod usage; // memory and processor time
mod warm; // another version, warmed beside the running one
mod websocket; // rigs over WebSocket
mod window; // models that take several bins at once, images, event cameras
mod writers; // who may write
mod zoo; // decoders of real recordings
