//! The lab's Barbican, as a user sees it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::lab::Lab;

/// What is in Barbican.
pub struct Barbican {
    client: Client,
    url: String,
    token: String,
}

impl Barbican {
    /// The lab's, with the token of a session.
    pub fn new(lab: &Lab, cloud: &Cloud) -> Result<Self> {
        Ok(Self {
            client: Client::builder().timeout(Duration::from_secs(60)).build()?,
            url: format!("{}/v1", lab.variable("LAB_BARBICAN_URL")?),
            token: cloud.token().to_owned(),
        })
    }

    /// What a key is: everything that Barbican says of it but its id, its owner and its times. `None`
    /// when there is no such key.
    pub async fn describe(&self, key: &str) -> Result<Option<Value>> {
        let Some(answer) = self.get(key, "application/json").await? else {
            return Ok(None);
        };
        let mut described: Value = serde_json::from_slice(&answer)?;
        let described = described.as_object_mut().context("no object")?;
        for own in ["secret_ref", "created", "updated", "creator_id"] {
            described.remove(own);
        }
        Ok(Some(Value::from(described.clone())))
    }

    /// What is in a key.
    pub async fn payload(&self, key: &str) -> Result<Vec<u8>> {
        let path = format!("{key}/payload");
        let payload = self.get(&path, "application/octet-stream").await?;
        payload.with_context(|| format!("there is no key {key}"))
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/secrets/{path}", self.url);
        let request = self.client.get(&url).header("X-Auth-Token", &self.token);
        let answer = request.header("Accept", accept).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        Ok(Some(answer.bytes().await?.to_vec()))
    }
}
