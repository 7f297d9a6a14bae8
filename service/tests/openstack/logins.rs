//! Who logs in.

use cinderblock::openstack::Session;

use crate::lab::{User, keystone, log_in};

fn knows_barbican(session: &Session) -> bool {
    let mut services = session.catalog.iter();
    services.any(|service| service["type"] == "key-manager")
}

#[tokio::test]
async fn a_user_in_a_domain_that_is_named() {
    let text = format!(
        "[keystone_authtoken]\nauth_type = password\nauth_url = {}\nusername = cinder\n\
         password = cinder\nproject_name = service\ndefault_domain_name = Default\n",
        keystone()
    );
    assert!(knows_barbican(&log_in(&text).await.expect("a token")));
    let elsewhere = format!("{text}user_domain_name = nowhere\n");
    let refused = log_in(&elsewhere)
        .await
        .expect_err("there is no such domain");
    assert!(refused.to_string().contains("401"), "{refused}");
}

#[tokio::test]
async fn an_application_credential_by_id_or_by_name() {
    let demo = User::demo().await;
    let application = demo.application(None).await;
    let start = format!(
        "[keystone_authtoken]\nauth_type = v3applicationcredential\nauth_url = {}\n\
         application_credential_secret = S3cret\n",
        keystone()
    );
    let by_id = format!("{start}application_credential_id = {}\n", application.id);
    let by_name = format!(
        "{start}application_credential_name = {}\nusername = demo\nuser_domain_name = Default\n",
        application.name
    );
    for text in [by_id, by_name] {
        assert!(
            knows_barbican(&log_in(&text).await.expect("a token")),
            "{text}"
        );
    }
    demo.forget(&application).await;
}

#[tokio::test]
async fn whoever_another_section_names() {
    let text = format!(
        "[keystone_authtoken]\nauth_section = cinder-itself\nusername = nobody\n\
         [cinder-itself]\nauth_type = v3password\nauth_url = {}\nuser-name = cinder\n\
         password = cinder\nuser_domain_id = default\nproject_domain_id = default\n\
         tenant_name = service\n",
        keystone()
    );
    assert!(knows_barbican(&log_in(&text).await.expect("a token")));
}

#[tokio::test]
async fn the_system_instead_of_a_project() {
    let text = format!(
        "[keystone_authtoken]\nauth_type = password\nauth_url = {}\nusername = admin\n\
         password = admin\nuser_domain_id = default\nsystem_scope = all\n",
        keystone()
    );
    // Keystone's bootstrap makes this user administrator of the system.
    log_in(&text).await.expect("a token");
}
