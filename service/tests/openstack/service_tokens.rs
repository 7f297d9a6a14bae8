//! A user's token that has expired while a request waited, with and without this service's own.

use std::time::Duration;

use api_compat::messaging::RequestContext;
use chrono::{DateTime, TimeDelta, Utc};
use cinderblock::keys::KeyManager;
use serde_json::{Map, json};
use tokio::time::sleep;

use crate::lab::{Application, User, config, keystone, variable};

fn request_of(user: &User, token: &str) -> RequestContext {
    let mut context = Map::new();
    for (name, value) in [
        ("_context_auth_token", token),
        ("_context_user_id", &user.id),
        ("_context_project_id", &user.project),
    ] {
        context.insert(name.to_owned(), json!(value));
    }
    RequestContext::take_from(&mut context)
}

/// The key manager of a worker, with more options.
fn keys(more: &str) -> KeyManager {
    let barbican = variable("LAB_BARBICAN_URL");
    KeyManager::from_config(&config(&format!(
        "[barbican]\nbarbican_endpoint = {barbican}\nnumber_of_retries = 0\n{more}"
    )))
}

/// An application credential that ends soon, whoever has logged in with it, and when that ends.
async fn short_lived(demo: &User) -> (Application, User, DateTime<Utc>) {
    // A busy machine needs longer to log in with it once.
    for life in [15, 30, 60] {
        let end = Utc::now() + TimeDelta::seconds(life);
        let application = demo.application(Some(end)).await;
        let credential = json!({"id": application.id, "secret": "S3cret"});
        let user = User::try_with(json!({"identity": {
            "methods": ["application_credential"], "application_credential": credential,
        }}))
        .await;
        match user {
            Ok(user) => return (application, user, end),
            Err(status) => assert_eq!(status, 401),
        }
        demo.forget(&application).await;
    }
    panic!("a credential of a minute is too short to log in with")
}

#[tokio::test]
async fn a_service_token_lets_a_users_token_be_late() {
    let demo = User::demo().await;
    let key = demo.store_key().await;
    let (application, late, end) = short_lived(&demo).await;
    let login = format!(
        "auth_type = password\nauth_url = {}\nusername = cinder\npassword = cinder\n\
         user_domain_name = Default\nproject_domain_name = Default\nproject_name = service\n",
        keystone()
    );
    let alone = keys("");
    let both = keys(&format!(
        "send_service_user_token = true\n[barbican_service_user]\n{login}"
    ));
    let cinders = keys(&format!(
        "[service_user]\nsend_service_user_token = true\n{login}"
    ));
    let request = request_of(&demo, &late.token);

    sleep((end - Utc::now()).to_std().unwrap_or_default() + Duration::from_secs(2)).await;
    let refused = alone
        .copy(&request, &key)
        .await
        .expect_err("it has expired");
    assert!(refused.to_string().contains("401"), "{refused}");
    let with_barbicans = both.copy(&request, &key).await.expect("a copy");
    let with_cinders = cinders.copy(&request, &key).await.expect("a copy");

    // A service's token does not stand for a user's.
    let forged = request_of(&demo, "gAAAAAB-no-token");
    let refused = both.copy(&forged, &key).await.expect_err("it is no token");
    assert!(refused.to_string().contains("401"), "{refused}");

    demo.forget(&application).await;
    for key in [key, with_barbicans, with_cinders] {
        demo.delete_key(&key).await;
    }
}
