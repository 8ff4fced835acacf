//! An etcd that is not there is an error, soon.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use tenure::{Error, Session};
use tokio::task::JoinSet;

/// The first thing that a mistyped endpoint meets. Waiting for longer than the documented 2 s looks like a hang.
#[tokio::test]
async fn nobody_there_is_an_error_within_two_seconds() -> Result<(), Box<dyn std::error::Error>> {
    // A port that was free a moment ago.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let begun = Instant::now();
    // Delays between the tries are random: the longest counts.
    let mut connecting: JoinSet<_> = (0..8).map(|_| Session::connect([closed.to_string()])).collect();
    while let Some(connected) = connecting.join_next().await {
        let error = connected?.expect_err("nobody is there");
        assert!(matches!(error, Error::Etcd { code: 14, .. }), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_millis(2_500), "it took {:?}", begun.elapsed());
    Ok(())
}
