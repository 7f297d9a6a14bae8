//! The lab's database, for what no API can do.

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::lab::{Lab, run};
use crate::patience::eventually;

/// Cinder's database, seen with the server's own client.
pub struct Database {
    dialect: String,
    user: String,
    password: String,
    host: String,
    port: String,
    name: String,
}

impl Database {
    /// The lab's.
    pub fn new(lab: &Lab) -> Result<Self> {
        Self::at(&lab.variable("LAB_DATABASE_URL")?)
    }

    /// That of the lab's second cloud.
    pub fn of_second(lab: &Lab) -> Result<Self> {
        Self::at(&lab.variable("LAB_SECOND_DATABASE_URL")?)
    }

    fn at(url: &str) -> Result<Self> {
        let parts = || {
            let (dialect, rest) = url.split_once("://")?;
            let (login, rest) = rest.split_once('@')?;
            let (user, password) = login.split_once(':')?;
            let (address, rest) = rest.split_once('/')?;
            let (host, port) = address.split_once(':')?;
            let name = rest.split('?').next()?;
            Some([dialect, user, password, host, port, name].map(str::to_owned))
        };
        let [dialect, user, password, host, port, name] = parts().context("LAB_DATABASE_URL")?;
        Ok(Self {
            dialect,
            user,
            password,
            host,
            port,
            name,
        })
    }

    /// Loses a backup's rows, as when the database was.
    pub async fn lose_backup(&self, id: &str) -> Result<()> {
        self.execute(&format!(
            "DELETE FROM backup_metadata WHERE backup_id = '{id}'; \
             DELETE FROM backups WHERE id = '{id}'"
        ))
        .await?;
        Ok(())
    }

    /// Changes columns of a row behind Cinder's back, such as `status = 'error'`.
    pub async fn change(&self, table: &str, id: &str, columns: &str) -> Result<()> {
        self.execute(&format!("UPDATE {table} SET {columns} WHERE id = '{id}'"))
            .await?;
        Ok(())
    }

    /// The statuses of the rows of a table with these ids.
    pub async fn statuses(&self, table: &str, ids: &[String]) -> Result<Vec<String>> {
        let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let ids = ids.join(", ");
        let select = format!("SELECT status FROM {table} WHERE id IN ({ids})");
        let rows = self.rows(&select).await?;
        let status = |row: &Value| row["status"].as_str().unwrap_or_default().to_owned();
        Ok(rows.iter().map(status).collect())
    }

    /// Waits until a column of a backup's row holds something.
    pub async fn wait_written(&self, backup: &str, column: &str) -> Result<()> {
        let select = format!("SELECT {column} FROM backups WHERE id = '{backup}'");
        let what = format!("{column} is written");
        let rows = async || self.rows(&select).await;
        eventually(&what, rows, |rows| !rows[0][column].is_null()).await?;
        Ok(())
    }

    /// Lets cinder-api send requests to the backup workers of these hosts and to no others: those are
    /// disabled. cinder-scheduler, which places new backups, does not heed that. Cinder 29's API says
    /// that it has disabled a service, and has not.
    pub async fn route_to(&self, hosts: &[&str]) -> Result<()> {
        let hosts: Vec<String> = hosts.iter().map(|host| format!("'{host}'")).collect();
        self.execute(&format!(
            "UPDATE services SET disabled = (host NOT IN ({})) WHERE topic = 'cinder-backup'",
            hosts.join(", ")
        ))
        .await?;
        Ok(())
    }

    /// Gives a volume many pairs of metadata, more than Cinder's API would take.
    pub async fn add_metadata(&self, volume: &str, pairs: u32, value: &str) -> Result<()> {
        self.execute(&format!(
            "INSERT INTO volume_metadata (created_at, deleted, volume_id, `key`, value) \
             SELECT NOW(), 0, '{volume}', CONCAT('key-', seq), '{value}' FROM seq_1_to_{pairs}"
        ))
        .await?;
        Ok(())
    }

    /// The rows that a query finds, each as an object of texts; NULL is null.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Value>> {
        let table = self.execute(sql).await?;
        let mut lines = table.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
        let value = |text: &str| match text {
            "NULL" => Value::Null,
            text => Value::from(text),
        };
        Ok(lines
            .map(|line| {
                let values = line.split('\t').map(value);
                let columns = names.iter().map(|name| (*name).to_owned());
                Value::Object(columns.zip(values).collect())
            })
            .collect())
    }

    /// What the client prints: a line with the names of the columns, then the rows, separated by tabs.
    async fn execute(&self, sql: &str) -> Result<String> {
        let mut client;
        if self.dialect.starts_with("postgresql") {
            client = Command::new("psql");
            client
                .args(["--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--quiet"])
                .args(["--no-align", "--field-separator", "\t"])
                .args(["--pset", "null=NULL", "--pset", "footer=off"])
                .args(["--username", &self.user, "--dbname", &self.name])
                .args(["--command", sql])
                .env("PGPASSWORD", &self.password);
        } else {
            client = Command::new("mariadb");
            client
                .args(["--protocol", "tcp", "--user", &self.user])
                .args(["--database", &self.name, "--batch", "--execute", sql])
                .env("MYSQL_PWD", &self.password);
        }
        let place = ["--host", &self.host, "--port", &self.port];
        run(client.args(place)).await
    }
}
