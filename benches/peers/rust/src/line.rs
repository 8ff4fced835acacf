//! A queue of keys in etcd, seen from outside.

use std::time::Duration;

use etcd_client::{Client, GetOptions, SortOrder, SortTarget};

use crate::{Result, Settings};

/// The keys below a lock's name.
pub struct Line {
    client: Client,
    prefix: String,
}

impl Line {
    pub async fn of(settings: &Settings, name: &str) -> Result<Self> {
        let client = Client::connect(settings.endpoints(), None).await?;
        Ok(Self { client, prefix: format!("{name}/") })
    }

    pub async fn len(&mut self) -> Result<usize> {
        let options = GetOptions::new().with_prefix().with_count_only();
        Ok(usize::try_from(self.client.get(self.prefix.as_str(), Some(options)).await?.count())?)
    }

    pub async fn reaches(&mut self, len: usize) -> Result<()> {
        while self.len().await? < len {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// The keys in the order of their creation.
    pub async fn keys(&mut self) -> Result<Vec<Vec<u8>>> {
        let options = GetOptions::new().with_prefix().with_keys_only().with_sort(SortTarget::Create, SortOrder::Ascend);
        let answer = self.client.get(self.prefix.as_str(), Some(options)).await?;
        Ok(answer.kvs().iter().map(|kv| kv.key().to_vec()).collect())
    }
}
