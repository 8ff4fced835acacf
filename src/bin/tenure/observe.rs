//! `tenure observe`.

use serde_json::json;
use tenure::Observation;
use tokio_stream::StreamExt as _;

use crate::args::Common;
use crate::connect;
use crate::failure::{Failure, OTHER};
use crate::hold::interrupted;
use crate::output::Output;
use crate::signals::{ENDING, Signals};

pub(crate) async fn observe(common: &Common, name: &str, output: Output) -> Result<u8, Failure> {
    let mut signals = Signals::listen(&ENDING)?;
    let session = tokio::select! {
        session = connect::onlooker(common, None) => session?,
        signal = signals.next() => return Ok(interrupted(signal)),
    };
    let following = async {
        let mut seen = session.election(name).observe().await.map_err(|error| Failure::of(name, &error))?;
        while let Some(seen) = seen.next().await {
            match seen.map_err(|error| Failure::of(name, &error))? {
                Observation::Leader(leader) => {
                    let (value, token) = (String::from_utf8_lossy(leader.value()), leader.token());
                    output.line(
                        format_args!("leader {name} token {token}: {value}"),
                        &json!({
                            "event": "leader", "name": name, "value": value, "key": leader.key(),
                            "token": i64::from(token), "lease": format!("{:x}", leader.lease()),
                        }),
                    )?;
                }
                _ => output.line(format_args!("vacant {name}"), &json!({ "event": "vacant", "name": name }))?,
            }
        }
        Err(Failure::new(OTHER, format_args!("{name}: the observation has ended")))
    };
    let ended = tokio::select! {
        ended = following => ended,
        signal = signals.next() => Ok(interrupted(signal)),
    };
    tokio::select! {
        _ = session.close() => {}
        _ = signals.next() => {}
    }
    ended
}
