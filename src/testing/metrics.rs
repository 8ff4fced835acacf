//! A member's metrics: fetched, and read.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a member may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// `GET /metrics` on a member's client port.
pub(super) async fn fetch(port: u16) -> io::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        // HTTP/1.0: so the body comes in one piece, and ends with the connection.
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(LIMIT, asked).await.unwrap_or_else(|late| Err(late.into()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.into())
    } else {
        Err(io::Error::other(format!("the answer was `{status}`")))
    }
}

/// The sum over the series called `name` whose labels contain `label`, or `None` if there is none.
pub(super) fn sum(metrics: &str, name: &str, label: &str) -> Option<f64> {
    let values = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        if found == name && labels.contains(label) { value.parse::<f64>().ok() } else { None }
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::sum;

    const METRICS: &str = r#"# TYPE handled counter
handled{code="OK",method="Txn"} 3
handled{code="Unavailable",method="Txn"} 1
handled{code="OK",method="Put it"} 1.2e+06
handled_total 7
"#;

    /// A figure that silently belongs to another series would make every count of requests wrong.
    #[test]
    fn a_metric_is_the_sum_over_the_series_that_fit() {
        assert_eq!(sum(METRICS, "handled", r#"method="Txn""#), Some(4.0));
        assert_eq!(sum(METRICS, "handled", r#"code="OK",method="Txn""#), Some(3.0));
        assert_eq!(sum(METRICS, "handled", r#"method="Put it""#), Some(1_200_000.0));
        assert_eq!(sum(METRICS, "handled_total", ""), Some(7.0));
        assert_eq!(sum(METRICS, "handled", r#"method="Tx""#), None);
        assert_eq!(sum(METRICS, "hand", ""), None);
    }
}
