//! Client and server over a real socket.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trireme_api::types::{
    DatapathStatus, EndReply, ErrorBody, ExplainReply, ExplainRequest, FlowLine, PolicyStatus, Status,
};
use trireme_api::{Agent, BindError, Client, ClientError, FlowStream, ServeError, Server, probe};
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, Protocol, TagSet};
use trireme_policy::{CompiledPolicy, Peer, PuPolicy};

#[tokio::test]
async fn every_question_is_answered_as_the_agent_says() {
    let stage = Stage::start();
    let client = Client::new(&stage.path);
    assert_eq!(client.status().await.unwrap(), status());
    assert_eq!(client.pus().await.unwrap(), status().pus);
    assert_eq!(client.explain(&request()).await.unwrap(), explanation());
    let refused = ExplainRequest { port: 1, ..request() };
    let error = client.explain(&refused).await.unwrap_err();
    assert_eq!(error.to_string(), "no such unit");
    client.reload().await.unwrap();
    assert_eq!(client.flows(2).await.unwrap(), [FlowLine::Missed(2)]);
    stage.stop().await;
}

#[tokio::test]
async fn followed_lines_arrive_one_by_one_until_the_reader_breaks_or_the_agent_stops() {
    let stage = Stage::start();
    let client = Client::new(&stage.path);
    let mut seen = Vec::new();
    let reader = client.follow(7, |line| {
        seen.push(line);
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    reader.await.unwrap();
    assert_eq!(seen, [FlowLine::Missed(7), FlowLine::Missed(8), FlowLine::Missed(9)]);

    let path = stage.path.clone();
    let endless = tokio::time::timeout(Duration::from_secs(10), async {
        let mut count = 0_u32;
        let stop = stage.stop.clone();
        let outcome = Client::new(&path)
            .follow(0, |_| {
                count += 1;
                stop.cancel();
                ControlFlow::Continue(())
            })
            .await;
        (outcome, count)
    });
    let (outcome, count) = endless.await.unwrap();
    assert!(count >= 1, "{count}");
    assert!(matches!(outcome, Ok(()) | Err(ClientError::Http(_))), "{outcome:?}");
    stage.stop().await;
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_server() {
    let stage = Stage::start();
    let mode = std::fs::metadata(&stage.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = stage.path.clone();
    let folder = stage.stop().await;
    assert!(!path.exists());
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NoAgent(_)), "{error:?}");
    drop(folder);
}

#[tokio::test]
async fn a_second_agent_on_one_socket_is_refused_and_the_first_goes_on() {
    let stage = Stage::start();
    assert!(matches!(Server::bind(&stage.path), Err(BindError::AlreadyServed(_))));
    assert!(matches!(probe(&stage.path), Err(BindError::AlreadyServed(_))));
    assert_eq!(Client::new(&stage.path).status().await.unwrap(), status());
    stage.stop().await;
}

#[tokio::test]
async fn a_socket_of_a_dead_agent_is_replaced_and_another_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    probe(&path).unwrap();
    drop(Server::bind(&path).unwrap());

    let file = folder.path().join("notes");
    std::fs::write(&file, "keep").unwrap();
    assert!(matches!(Server::bind(&file), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep");
}

#[tokio::test]
async fn a_foreign_user_is_turned_away_even_where_the_file_lets_it_in() {
    let stage = Stage::start();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&stage.path, 0o666);
    open(stage.path.parent().unwrap(), 0o755);
    let ask = |uid: u32| {
        let path = stage.path.clone();
        tokio::task::spawn_blocking(move || {
            let mut curl = std::process::Command::new("curl");
            curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
            curl.arg(path).arg("http://agent/v1/status").uid(uid).current_dir("/");
            String::from_utf8(curl.output().unwrap().stdout).unwrap()
        })
    };
    assert_eq!(ask(0).await.unwrap(), "200");
    let refused = ask(65534).await.unwrap();
    assert!(refused == "403" || refused == "000", "{refused}");
    stage.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_malformed_questions_get_an_error_body() {
    let stage = Stage::start();
    let curl = |arguments: &'static [&'static str]| {
        let path = stage.path.clone();
        tokio::task::spawn_blocking(move || {
            let mut curl = std::process::Command::new("curl");
            curl.args(["-s", "--unix-socket"]).arg(path).args(arguments);
            String::from_utf8(curl.output().unwrap().stdout).unwrap()
        })
    };
    let unknown = curl(&["http://agent/v2/status"]).await.unwrap();
    assert_eq!(unknown, r#"{"error":"no such path: this agent answers below /v1/"}"#);
    let malformed =
        ["-H", "content-type: application/json", "-d", "{\"from\":[\"x\"]}", "http://agent/v1/explain"];
    let path = stage.path.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--unix-socket"]).arg(path).args(malformed);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains("a tag is written key=value"), "{answer}");
    stage.stop().await;
}

struct Stage {
    path: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
    folder: TempDir,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "the test owns the task and awaits it")]
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let stop = CancellationToken::new();
        let server = Server::bind(&path).unwrap();
        let server = tokio::spawn(server.serve(Arc::new(Fixed), stop.clone()));
        Self { path, stop, server, folder }
    }

    async fn stop(self) -> TempDir {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.server).await;
        ended.unwrap().unwrap().unwrap();
        self.folder
    }
}

struct Fixed;

impl Agent for Fixed {
    async fn status(&self) -> Result<Status, ErrorBody> {
        Ok(status())
    }

    fn flows(&self, limit: usize) -> Vec<FlowLine> {
        vec![FlowLine::Missed(limit.try_into().unwrap())]
    }

    fn follow(&self, limit: usize) -> FlowStream {
        let start: u64 = limit.try_into().unwrap();
        Box::pin(futures_util::stream::unfold(start, |number| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some((FlowLine::Missed(number), number + 1))
        }))
    }

    async fn explain(&self, request: ExplainRequest) -> Result<ExplainReply, ErrorBody> {
        if request.port == 1 {
            return Err(ErrorBody { error: "no such unit".to_owned() });
        }
        Ok(explanation())
    }

    async fn reload(&self) -> Result<(), ErrorBody> {
        Ok(())
    }
}

fn request() -> ExplainRequest {
    ExplainRequest {
        from: TagSet::parse(["role=web"]).unwrap(),
        to: TagSet::parse(["role=db"]).unwrap(),
        port: 80,
        protocol: 6,
    }
}

fn explanation() -> ExplainReply {
    let policy = CompiledPolicy::compile(&PuPolicy::deny_all()).unwrap();
    let tags = request().from;
    let peer = Peer { tags: &tags, partial: false };
    let explanation = policy.explain(Direction::Ingress, &peer, 80, Protocol::TCP);
    let text = explanation.to_string();
    let end = EndReply { direction: Direction::Ingress, accepts: false, text, explanation };
    ExplainReply { allowed: false, ends: vec![end] }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node: "node-a".parse().unwrap(),
        pid: 7,
        started_at: WallTime(1),
        datapath: DatapathStatus {
            kind: "bpf".to_owned(),
            detail: String::new(),
            gauges: [("connections".to_owned(), 3)].into(),
            counters: Vec::new(),
        },
        policy: PolicyStatus {
            source: "policy.yaml".to_owned(),
            revision: 1,
            loaded_at: WallTime(1),
            error: None,
        },
        secrets: "psk".to_owned(),
        authorization: "mutual".to_owned(),
        encoding: "cwt".to_owned(),
        warnings: Vec::new(),
        pus: Vec::new(),
        flow_records: 0,
        deny_list: None,
    }
}
