//! `tenure revoke`: asks holders to let go, or ends a hold by force.

use std::time::Duration;

use serde_json::json;
use tenure::{FencingToken, Session};
use tokio::time::{sleep, timeout};

use crate::args::{Common, Revoke};
use crate::connect;
use crate::failure::{Failure, NOT_FREE, OTHER};
use crate::hold::interrupted;
use crate::output::Output;
use crate::signals::{ENDING, Signals};

/// How often it is looked whether they have let go.
const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn revoke(common: &Common, revoke: Revoke, output: Output) -> Result<u8, Failure> {
    let mut signals = Signals::listen(&ENDING)?;
    let session = tokio::select! {
        session = connect::onlooker(common, revoke.identity.as_deref()) => session?,
        signal = signals.next() => return Ok(interrupted(signal)),
    };
    let done = tokio::select! {
        done = ask_or_force(&session, &revoke, output) => done,
        signal = signals.next() => Ok(interrupted(signal)),
    };
    tokio::select! {
        // Takes the request back.
        _ = session.close() => {}
        _ = signals.next() => {}
    }
    done
}

async fn ask_or_force(session: &Session, revoke: &Revoke, output: Output) -> Result<u8, Failure> {
    match revoke.force {
        Some(token) => force(session, &revoke.name, token, output).await,
        None => ask(session, revoke, output).await,
    }
}

async fn force(session: &Session, name: &str, token: FencingToken, output: Output) -> Result<u8, Failure> {
    let released = session.mutex(name).force_release(token).await.map_err(|error| Failure::of(name, &error))?;
    if !released {
        return Err(Failure::new(OTHER, format_args!("{name}: nobody holds it with token {token}")));
    }
    let object = json!({ "event": "ended", "name": name, "token": i64::from(token) });
    output.line(format_args!("ended {name} token {token}"), &object)?;
    Ok(0)
}

async fn ask(session: &Session, revoke: &Revoke, output: Output) -> Result<u8, Failure> {
    let (name, failed) = (&revoke.name, |error| Failure::of(&revoke.name, &error));
    // By this handle candidates are told by their sessions, and so are holders of locks.
    let asked = session.election(name).request_revocation(&revoke.reason).await.map_err(failed)?;
    if asked.is_empty() {
        output.note(format_args!("{name}: nobody holds it"));
        return Ok(0);
    }
    for holder in &asked {
        let (who, token) = (holder.identity(), holder.token());
        let object = json!({ "event": "asked", "name": name, "identity": who, "token": i64::from(token) });
        output.line(format_args!("asked {who} token {token}"), &object)?;
    }
    let gone = async {
        loop {
            let queue = session.mutex(name).queue().await.map_err(failed)?;
            if !queue.iter().any(|waiter| asked.iter().any(|holder| holder.token() == waiter.token())) {
                return Ok::<_, Failure>(());
            }
            sleep(POLL).await;
        }
    };
    match timeout(revoke.timeout.unwrap_or(Duration::MAX), gone).await {
        Ok(gone) => gone?,
        Err(_) => return Err(Failure::new(NOT_FREE, format_args!("{name}: still held"))),
    }
    output.line(format_args!("released {name}"), &json!({ "event": "released", "name": name }))?;
    Ok(0)
}
