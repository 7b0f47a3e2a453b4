//! API keys: every call of both doors without one, with a wrong one, with one that was revoked; and their end.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use latentd::config::process_env;
use latentd::wire::{fault, v1};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::raw::Raw;
use crate::support::server::run;
use crate::support::{Answer, Database, LIMIT, Latentd, Proxy, Setup, counts, linear, says, until, within};

/// How long a server may take to see that a key was made or revoked; a busy machine gets some more.
const NOTICED: Duration = Duration::from_secs(8);
const SCOPES: [&str; 3] = ["stream", "read", "admin"];

/// A server that any host may reach.
fn open_to_all() -> Setup {
    Setup::new().key("http", "0.0.0.0:0").key("grpc", "0.0.0.0:0")
}

/// `latentd keys create`; the secret.
async fn create(data: &Path, name: &str, scopes: &str) -> String {
    let data = data.to_str().unwrap();
    let (code, out, said) =
        run(&["keys", "create", "--name", name, "--scopes", scopes, "--data", data]).await;
    assert_eq!(code, Some(0), "{said}");
    says(&said, &[name, scopes]);
    let secret = out.trim_end();
    assert!(secret.starts_with("latentd_") && !secret.contains(char::is_whitespace), "{secret}");
    secret.to_owned()
}

/// `latentd keys revoke`.
async fn revoke(data: &Path, name: &str) {
    let (code, out, said) = run(&["keys", "revoke", name, "--data", data.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    says(&out, &["revoked", name]);
}

/// One call by HTTP with a key, or without.
async fn call(server: &Latentd, method: &str, path: &str, key: Option<&str>) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = server.client.request(method, server.url(path)).header("content-type", "application/json");
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    Answer::of(request.body("{}")).await
}

fn is_unauthenticated(answer: &Answer, parts: &[&str]) {
    answer.refused().is(401, "unauthenticated", parts);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

/// Waits until a key lets in, or no longer does.
async fn seen(server: &Latentd, key: &str, holds: bool) {
    until(NOTICED, "a key that was made or revoked", || async {
        let answer = call(server, "GET", "/v1/nowhere", Some(key)).await;
        ((answer.status == 404) == holds).then_some(())
    })
    .await;
}

/// Keys of one scope each, and one of all that was revoked.
struct Bunch {
    of: Vec<(&'static str, String)>,
    revoked: String,
    /// Of the form of a key, and none.
    unknown: String,
}

impl Bunch {
    /// In the library of `data`, before a server starts there.
    async fn make(data: &Path) -> Self {
        let mut of = Vec::new();
        for scope in SCOPES {
            of.push((scope, create(data, scope, scope).await));
        }
        let revoked = create(data, "lost", "stream,read,admin").await;
        revoke(data, "lost").await;
        Self { of, revoked, unknown: format!("latentd_{}", "0".repeat(64)) }
    }

    fn with(&self, scope: &str) -> &str {
        &self.of.iter().find(|(name, _)| *name == scope).expect("a scope").1
    }
}

#[tokio::test]
async fn every_call_of_the_document_needs_a_key_that_holds_and_has_its_scope() {
    let setup = open_to_all();
    let keys = Bunch::make(&setup.data()).await;
    let server = setup.start().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(call(&server, "GET", path, None).await.status, 200, "{path}");
        assert_eq!(call(&server, "GET", path, Some("nonsense")).await.status, 200, "{path}");
    }
    let document = call(&server, "GET", "/openapi.json", Some(keys.with("read"))).await.json();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let mut tried = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            let what = format!("{method} {path}");
            let path = path.replace(['{', '}'], "");
            let Some(scope) = operation["security"][0]["key"][0].as_str() else {
                assert!(["/livez", "/readyz"].contains(&path.as_str()), "{what} is open");
                continue;
            };
            is_unauthenticated(&call(&server, &method, &path, None).await, &["API key"]);
            is_unauthenticated(&call(&server, &method, &path, Some("nonsense")).await, &[]);
            is_unauthenticated(
                &call(&server, &method, &path, Some(&keys.unknown)).await,
                &["no such API key"],
            );
            let revoked = call(&server, &method, &path, Some(&keys.revoked)).await;
            is_unauthenticated(&revoked, &["`lost` was revoked"]);
            if method == "GET" {
                assert_eq!(call(&server, "HEAD", &path, None).await.status, 401, "{what}");
            }
            for (of, key) in &keys.of {
                let answer = call(&server, &method, &path, Some(key)).await;
                if *of == scope {
                    assert!(![401, 403].contains(&answer.status), "{what}: {}", answer.text());
                } else {
                    answer.refused().is(
                        403,
                        "forbidden",
                        &[&format!("`{scope}`"), &format!("`{of}` has {of}")],
                    );
                }
            }
            tried.push((what, scope.to_owned()));
        }
    }
    assert!(tried.len() > 25, "{tried:?}");
    for (what, scope) in [
        ("GET /metrics", "read"),
        ("GET /openapi.json", "read"),
        ("POST /v1/sessions", "stream"),
        ("GET /v1/sessions/{session}/stream", "stream"),
        ("GET /v1/sessions/{session}/live", "read"),
        ("POST /v1/models/{model}/load", "admin"),
        ("GET /v1/runs", "read"),
    ] {
        assert!(tried.contains(&(what.into(), scope.into())), "{what}: {tried:?}");
    }
    // What is no call, or badly written, is not told from one that is.
    for (method, path) in
        [("GET", "/nowhere"), ("PUT", "/v1/runs"), ("POST", "/livez"), ("GET", "/v1/runs/%ff")]
    {
        is_unauthenticated(&call(&server, method, path, None).await, &[]);
        let answer = call(&server, method, path, Some(keys.with("read"))).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    let log = server.stop().await.log();
    for key in keys.of.iter().map(|(_, key)| key).chain([&keys.revoked]) {
        assert!(!log.contains(&key["latentd_".len()..]), "the log has a secret");
    }
}

/// One gRPC call with an empty message, until its first answer.
async fn by_grpc(channel: &Channel, method: &str, key: Option<&str>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the channel is ready");
    let ask = with_key(tokio_stream::once(bytes::Bytes::new()), key);
    let answer = within(method, grpc.streaming(ask, method.parse().unwrap(), Raw)).await?;
    within(method, answer.into_inner().message()).await.map(|_| ())
}

fn with_key<T>(message: T, key: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

/// What reflection tells.
async fn reflect(channel: &Channel, key: &str, ask: MessageRequest) -> MessageResponse {
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let call = with_key(tokio_stream::once(ask), Some(key));
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut told = client.server_reflection_info(call).await.expect("reflection").into_inner();
    let told: ServerReflectionResponse = told.message().await.unwrap().expect("an answer");
    told.message_response.expect("what was asked for")
}

/// `/package.Service/Method` of all that is served.
async fn methods(channel: &Channel, key: &str) -> Vec<String> {
    let listed = reflect(channel, key, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(services) = listed else { panic!("{listed:?}") };
    let mut methods = Vec::new();
    for service in services.service {
        let told = reflect(channel, key, MessageRequest::FileContainingSymbol(service.name.clone())).await;
        let MessageResponse::FileDescriptorResponse(files) = told else { panic!("{told:?}") };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(&file[..]).unwrap();
            for described in &file.service {
                if format!("{}.{}", file.package(), described.name()) == service.name {
                    let names = described.method.iter().map(|method| method.name());
                    methods.extend(names.map(|name| format!("/{}/{name}", service.name)));
                }
            }
        }
    }
    methods
}

fn is_refused(answer: Result<(), Status>, code: Code, kind: &str, what: &str) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status:?}");
    assert_eq!(
        status.metadata().get("latentd-kind").and_then(|kind| kind.to_str().ok()),
        Some(kind),
        "{what}"
    );
    let told = fault::from_status(&status).expect("the fault, whole");
    assert_eq!((told.kind.as_str(), told.detail.as_str()), (kind, status.message()));
    assert!(!told.request_id.is_empty(), "{what}");
}

#[tokio::test]
async fn every_grpc_method_needs_a_key_that_holds_and_has_its_scope() {
    let setup = open_to_all();
    let keys = Bunch::make(&setup.data()).await;
    let server = setup.start().await;
    let channel = server.channel().await;
    let mut methods = methods(&channel, keys.with("read")).await;
    assert!(methods.len() >= 10, "{methods:?}");
    // Either reflection lists itself alone.
    methods.push("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo".into());
    for method in &methods {
        let name = method.rsplit('/').next().unwrap();
        let is_streams = method.starts_with("/latentd.v1.Live/") && name != "Subscribe";
        let scope = if is_streams { "stream" } else { "read" };
        for key in [None, Some("nonsense"), Some(keys.unknown.as_str()), Some(keys.revoked.as_str())] {
            let answer = by_grpc(&channel, method, key).await;
            is_refused(answer, Code::Unauthenticated, "unauthenticated", &format!("{method} with {key:?}"));
        }
        for (of, key) in &keys.of {
            let answer = by_grpc(&channel, method, Some(key)).await;
            let what = format!("{method} with `{of}`");
            if *of == scope {
                let code = answer.err().map(|status| status.code());
                assert!(!matches!(code, Some(Code::Unauthenticated | Code::PermissionDenied)), "{what}");
            } else {
                is_refused(answer, Code::PermissionDenied, "forbidden", &what);
            }
        }
    }
    let nowhere = "/latentd.v1.Live/Nothing";
    is_refused(by_grpc(&channel, nowhere, None).await, Code::Unauthenticated, "unauthenticated", nowhere);
    let known = by_grpc(&channel, nowhere, Some(keys.with("read"))).await.unwrap_err();
    assert_eq!(known.code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn a_key_is_noticed_without_a_restart_and_takes_what_it_has_open_with_it() {
    let server = open_to_all().key("log_level", "info,latentd=debug").start().await;
    let data = server.setup.data();
    let keeper = create(&data, "keeper", "read").await;
    let rig = create(&data, "rig-3", "stream,read").await;
    seen(&server, &rig, true).await;

    let ask = latentd::wire::json::write(&linear());
    let opened = server.client.post(server.url("/v1/sessions")).header("content-type", "application/json");
    let opened: v1::OpenReply = Answer::of(opened.bearer_auth(&rig).body(ask)).await.message();
    let session = opened.session.clone();
    let writer = opened.writers.values().next().unwrap().clone();
    // A rig by gRPC, one who watches its health, one who listens.
    let (up, ups) = mpsc::channel(8);
    let attach = v1::Attach { session: session.clone(), writer: writer.clone(), signal: None };
    let message = |message| v1::Up { message: Some(message) };
    up.send(message(v1::up::Message::Attach(attach))).await.unwrap();
    up.send(message(v1::up::Message::Frame(counts(0, 0, &[[1.0, 2.0]])))).await.unwrap();
    let mut live = server.live().await;
    let mut stream = live.stream(with_key(ReceiverStream::new(ups), Some(&rig))).await.unwrap().into_inner();
    for _ in ["attached", "output"] {
        within("a message down", stream.message()).await.unwrap().expect("a message");
    }
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    let watch = tonic_health::pb::HealthCheckRequest::default();
    let mut watched = health.watch(with_key(watch, Some(&rig))).await.unwrap().into_inner();
    within("health", watched.message()).await.unwrap().expect("a state");
    let events = server.client.get(server.url(&format!("/v1/sessions/{session}/live"))).bearer_auth(&rig);
    let events = events.send().await.unwrap();
    assert_eq!(events.status(), 200);
    // And a second rig by WebSocket, in a session of its own.
    let second = server.client.post(server.url("/v1/sessions")).header("content-type", "application/json");
    let second = second.bearer_auth(&rig).body(latentd::wire::json::write(&linear()));
    let second: v1::OpenReply = Answer::of(second).await.message();
    let path = crate::support::websocket::path(&second.session, second.writers.values().next().unwrap());
    let mut request = format!("ws://latentd{path}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {rig}").parse().unwrap());
    let road = TcpStream::connect(&server.http).await.unwrap();
    let (mut socket, _) = within("an upgrade", tokio_tungstenite::client_async(request, road)).await.unwrap();
    assert!(matches!(within("attached", socket.next()).await, Some(Ok(Message::Text(_)))));

    let begun = Instant::now();
    revoke(&data, "rig-3").await;
    let status = within("the end of the stream", stream.message()).await.unwrap_err();
    is_refused(Err(status), Code::Unauthenticated, "unauthenticated", "the stream");
    let status = within("the end of the watch", watched.message()).await.unwrap_err();
    is_refused(Err(status), Code::Unauthenticated, "unauthenticated", "the watch");
    let told = within("the end of the events", events.text()).await.unwrap();
    let last = told.trim_end().rsplit("\n\n").next().unwrap();
    says(last, &["event: end", r#""kind":"unauthenticated""#, "rig-3"]);
    let mut last = Vec::new();
    while let Some(Ok(message)) = within("the end of the socket", socket.next()).await {
        last.push(message);
    }
    let Some([Message::Text(said), Message::Close(Some(close))]) = last.last_chunk() else {
        panic!("{last:?}")
    };
    says(said.as_str(), &[r#""kind":"unauthenticated""#]);
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4401, "unauthenticated"));
    assert!(begun.elapsed() < NOTICED, "{:?}", begun.elapsed());
    is_unauthenticated(&call(&server, "GET", "/v1/runs", Some(&rig)).await, &["`rig-3` was revoked"]);

    // The sessions go on, under whatever key comes next.
    let next = create(&data, "rig-3", "stream").await;
    seen(&server, &next, true).await;
    let told = call(&server, "GET", "/v1/sessions", Some(&keeper)).await.message::<v1::SessionsReply>();
    assert_eq!(told.sessions.len(), 2);
    for session in [&session, &second.session] {
        assert_eq!(
            call(&server, "DELETE", &format!("/v1/sessions/{session}"), Some(&next)).await.status,
            200
        );
    }
    // And replay shows a key.
    let key_file = data.join("key");
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/recordings/simulated-cortex");
    let grpc = format!("http://{}", server.grpc);
    let mut play = vec!["replay", recording.to_str().unwrap(), "--pipeline", "nothing", "--grpc", &grpc];
    let (_, _, said) = run(&play).await;
    says(&said, &["open was refused (unauthenticated)"]);
    std::fs::write(&key_file, format!("{next}\n")).unwrap();
    play.extend(["--key-file", key_file.to_str().unwrap()]);
    let (_, _, said) = run(&play).await;
    says(&said, &["open was refused (not_found)"]);
    let (code, listed, _) = run(&["keys", "list", "--data", data.to_str().unwrap()]).await;
    assert_eq!((code, listed.lines().count()), (Some(0), 4), "{listed}");
    says(&listed, &["keeper", "rig-3", "stream,read", "holds", "revoked"]);
    let log = server.stop().await.log();
    says(&log, &["caller=\"rig-3\""]);
}

#[tokio::test]
async fn on_the_loopback_address_and_where_it_is_allowed_no_key_is_asked_for_unless_it_is_said() {
    let setup = open_to_all().key("allow_unauthenticated", "true");
    for server in [setup.start().await, Latentd::start().await] {
        assert_eq!(call(&server, "GET", "/v1/runs", None).await.status, 200);
        assert_eq!(call(&server, "GET", "/metrics", Some("nonsense")).await.status, 200);
        by_grpc(&server.channel().await, "/grpc.health.v1.Health/Check", None).await.unwrap();
        server.stop().await;
    }
    let setup = Setup::new().key("require_keys", "true").key("open_metrics", "true");
    let server = setup.start().await;
    is_unauthenticated(&call(&server, "GET", "/v1/runs", None).await, &[]);
    assert_eq!(call(&server, "GET", "/metrics", None).await.status, 200);
    let asked = by_grpc(&server.channel().await, "/grpc.health.v1.Health/Check", None).await;
    is_refused(asked, Code::Unauthenticated, "unauthenticated", "health");
    let log = server.stop().await.log();
    says(&log, &["API keys are asked for and there is none", "latentd keys create"]);
}

#[tokio::test]
async fn what_the_command_cannot_do_is_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    for arguments in [&["keys", "list", "--data", at][..], &["keys", "revoke", "rig", "--data", at]] {
        let (code, _, said) = run(arguments).await;
        assert_eq!(code, Some(1), "{said}");
        says(&said, &["there is no library", at]);
    }
    create(&data, "rig", "read").await;
    let taken = ["keys", "create", "--name", "rig", "--scopes", "read", "--data", at];
    let unknown = ["keys", "revoke", "rigg", "--data", at];
    for (arguments, expected) in [(&taken[..], "there is an API key `rig`"), (&unknown, "there are: rig")] {
        let (code, out, said) = run(arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
        says(&said, &[expected]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_library_in_postgres_hold_while_it_is_away() {
    let database = std::sync::Arc::new(Database::fresh(&process_env).await);
    let road = Proxy::to(&database.address()).await;
    let url = database.url_by("127.0.0.1", road.address.port());
    let keys = |arguments: &[&str]| {
        let mut arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(["--database-url".into(), database.url.clone()]);
        async move {
            let (code, out, said) = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(code, Some(0), "{said}");
            out.trim_end().to_owned()
        }
    };
    let rig = keys(&["keys", "create", "--name", "rig", "--scopes", "read"]).await;
    let setup =
        open_to_all().library(&database, &url).key("database_connect_s", 1).key("database_statement_s", 2);
    let server = setup.start().await;
    assert_eq!(call(&server, "GET", "/v1/runs", Some(&rig)).await.status, 200);
    let other = keys(&["keys", "create", "--name", "other", "--scopes", "read"]).await;
    seen(&server, &other, true).await;
    keys(&["keys", "revoke", "other"]).await;
    seen(&server, &other, false).await;
    road.cut().await;
    // Over several looks, and over a start.
    tokio::time::sleep(Duration::from_secs(3)).await;
    seen(&server, &rig, true).await;
    let server = server.stop().await.start().await;
    assert_eq!(call(&server, "GET", "/v1/models", Some(&rig)).await.status, 200);
    is_unauthenticated(&call(&server, "GET", "/v1/models", Some(&other)).await, &["revoked"]);
    keys(&["keys", "revoke", "rig"]).await;
    road.open();
    until(LIMIT, "a key that was revoked while the library was away", || async {
        (call(&server, "GET", "/v1/models", Some(&rig)).await.status == 401).then_some(())
    })
    .await;
    server.stop().await;
}
