//! From flags and environment to a client and a session.

use std::fs;
use std::path::Path;

use tenure::etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tenure::{Session, SessionBuilder};

use crate::args::{Common, How};
use crate::failure::{Failure, USAGE};

/// A client, which connects with its first call.
pub(crate) async fn client(common: &Common) -> Result<Client, Failure> {
    let client = Client::connect(&common.endpoints, Some(options(common)?)).await;
    client.map_err(|error| Failure::of_client(&common.endpoints, &error))
}

/// A session to hold with.
pub(crate) async fn session(common: &Common, how: &How) -> Result<Session, Failure> {
    let builder = Session::builder(client(common).await?).ttl(how.ttl);
    open(common, builder, how.identity.as_deref()).await
}

/// A session to look with, or to ask with.
pub(crate) async fn onlooker(common: &Common, identity: Option<&str>) -> Result<Session, Failure> {
    open(common, Session::builder(client(common).await?), identity).await
}

async fn open(common: &Common, mut builder: SessionBuilder, identity: Option<&str>) -> Result<Session, Failure> {
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    let opened = builder.namespace(&common.namespace).open().await;
    opened.map_err(|error| Failure::of(&common.endpoints.join(", "), &error))
}

fn options(common: &Common) -> Result<ConnectOptions, Failure> {
    let mut options =
        tenure::connect_options().with_connect_timeout(common.dial_timeout).with_timeout(common.command_timeout);
    if let Some((user, password)) = credentials(common)? {
        options = options.with_user(user, password);
    }
    if let Some(tls) = tls(common)? {
        options = options.with_tls(tls);
    }
    Ok(options)
}

fn credentials(common: &Common) -> Result<Option<(&str, &str)>, Failure> {
    let Some(user) = common.user.as_deref().filter(|user| !user.is_empty()) else { return Ok(None) };
    if let Some(password) = &common.password {
        return Ok(Some((user, password)));
    }
    let split = user.split_once(':').map(Some);
    split.ok_or_else(|| Failure::new(USAGE, format_args!("user {user}: no password; set ETCDCTL_PASSWORD")))
}

/// None where every endpoint says `http://`, whatever the environment has for others.
fn tls(common: &Common) -> Result<Option<TlsOptions>, Failure> {
    let Common { cacert, cert, key, endpoints, .. } = common;
    let asked = cacert.is_some() || cert.is_some() || key.is_some();
    let plain = endpoints.iter().all(|endpoint| endpoint.starts_with("http://"));
    let https = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    if plain || !(asked || https) {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    tls = match cacert {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
        None => tls.with_native_roots(),
    };
    match (cert, key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => return Err(Failure::new(USAGE, "--cert and --key belong together")),
    }
    Ok(Some(tls))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| Failure::new(USAGE, format_args!("{}: {error}", file.display())))
}
