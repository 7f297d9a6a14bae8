//! What arrives from the broker.

use api_compat::log_line::{Level, LogContext, LogLine};
use api_compat::messaging::compression::inflate;
use api_compat::messaging::reply::Outcome;
use api_compat::messaging::{Failure, Reply, Request, RequestContext, envelope};
use api_compat::rpc::BackupMethod;
use chrono::DateTime;
use cinderblock_fuzz::{assert_short, run, run_within};

use crate::assert_same;

/// Nobody writes that of his own accord.
const SECRET: &str = "cinderblock-planted-secret";

#[test]
fn envelopes() {
    run("envelopes", |input| match envelope::decode(input) {
        Ok(payload) => {
            let again = envelope::decode(&envelope::encode(payload.clone())).expect("ours");
            assert_same(&again.into(), &payload.into());
        }
        Err(error) => assert_short(&error),
    });
}

#[test]
fn requests() {
    run("requests", |input| {
        let request = match Request::decode(input) {
            Ok(request) => request,
            Err(error) => return assert_short(&error),
        };
        let again = Request::decode(&request.encode()).expect("ours");
        assert_eq!(again.method, request.method);
        assert_eq!(again.call, request.call);
        assert_same(&again.args.into(), &request.args.clone().into());
        for ping_enabled in [false, true] {
            if let Err(refusal) = BackupMethod::parse(&request, ping_enabled) {
                assert_short(&refusal);
                assert_short(&refusal.failure());
                let sent = refusal.failure().encode();
                assert_eq!(Failure::decode(&sent).expect("ours"), refusal.failure());
            }
        }
        assert_is_one_line(&request);
        assert_hides_secrets(request);
    });
}

/// Whatever a message's sender chooses, the line that tells of it is one.
fn assert_is_one_line(request: &Request) {
    let context = LogContext::from(&request.context);
    let line = LogLine {
        time: DateTime::UNIX_EPOCH.fixed_offset(),
        date_format: "%Y",
        pid: 1,
        level: Level::Error,
        logger: "cinder.backup",
        context: Some(&context),
        message: &format!("{} {:?}", request.method, request.context.project_name()),
    };
    let line = line.to_string();
    let breaks = |c: char| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!line.contains(breaks), "{line:?}");
}

fn assert_hides_secrets(mut request: Request) {
    let mut items = serde_json::Map::new();
    request.context.put_into(&mut items);
    items.insert("_context_auth_token".to_owned(), SECRET.into());
    request.context = RequestContext::take_from(&mut items);
    for argument in request.args.values_mut() {
        *argument = SECRET.into();
    }
    let shown = format!("{request:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn replies() {
    run("replies", |input| {
        let mut reply = match Reply::decode(input) {
            Ok(reply) => reply,
            Err(error) => return assert_short(&error),
        };
        let again = Reply::decode(&reply.encode()).expect("ours");
        assert_eq!(again.msg_id, reply.msg_id);
        assert_eq!(again.ending, reply.ending);
        match (&again.outcome, &reply.outcome) {
            (Outcome::Result(again), Outcome::Result(result)) => assert_same(again, result),
            (Outcome::Failure(again), Outcome::Failure(failure)) => {
                assert_eq!(again.to_string(), failure.to_string());
                assert_short(failure);
            }
            _ => panic!("another outcome"),
        }
        if let Outcome::Result(result) = &mut reply.outcome {
            *result = SECRET.into();
            assert!(!format!("{reply:?}").contains(SECRET));
        }
    });
}

#[test]
fn failures() {
    run("failures", |input| {
        let Ok(text) = str::from_utf8(input) else {
            return;
        };
        match Failure::decode(text) {
            Ok(failure) => {
                assert_short(&failure);
                let again = Failure::decode(&failure.encode()).expect("ours");
                let value = |failure| serde_json::to_value(failure).expect("it is JSON");
                assert_same(&value(again), &value(failure));
            }
            Err(error) => assert!(error.is_syntax() || error.is_data() || error.is_eof()),
        }
    });
}

#[test]
fn compressed_bodies() {
    // What comes out may be as long as a body may be, and is copied while it grows.
    let memory = |_| 4 * envelope::MAX_BODY as u64 + (16 << 20);
    run_within("compressed_bodies", memory, |input| {
        for method in ["gzip", "bzip2"] {
            match inflate(input, Some(method)) {
                Ok(body) => assert!(body.len() <= envelope::MAX_BODY),
                Err(error) => assert_short(&error),
            }
        }
        let named = String::from_utf8_lossy(input);
        if let Err(error) = inflate(input, Some(&named)) {
            assert_short(&error);
        }
    });
}
