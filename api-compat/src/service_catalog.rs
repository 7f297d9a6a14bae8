//! Keystone's catalogue: where the cloud's services are.

use serde_json::Value;

use crate::config::Interface;

/// The address of the service of a type, among `entries` of a catalogue: of the version that tokens
/// carry (one endpoint for each interface), or of the older one in a request's context (all
/// interfaces in one endpoint). The first one that fits counts, as it does for keystoneauth.
pub fn endpoint<'a>(
    entries: &'a [Value],
    service_type: &str,
    interface: Interface,
    region: Option<&str>,
) -> Option<&'a str> {
    let services = entries.iter().filter(|entry| entry["type"] == service_type);
    let endpoints = services.flat_map(|entry| entry["endpoints"].as_array().into_iter().flatten());
    endpoints
        .filter(|endpoint| region.is_none_or(|region| is_in(endpoint, region)))
        .find_map(|endpoint| url(endpoint, interface))
}

fn is_in(endpoint: &Value, region: &str) -> bool {
    endpoint["region"] == region || endpoint["region_id"] == region
}

fn url(endpoint: &Value, interface: Interface) -> Option<&str> {
    let name = interface.as_str();
    let url = match endpoint["interface"].as_str() {
        Some(own) if own == name => &endpoint["url"],
        Some(_) => return None,
        None => &endpoint[format!("{name}URL")],
    };
    url.as_str().filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_context() -> Vec<Value> {
        vec![
            json!({"type": "identity", "name": "keystone", "endpoints": [{"publicURL": "http://k"}]}),
            json!({"type": "key-manager", "name": "barbican", "endpoints": [
                {"region": "A", "publicURL": "http://pa", "internalURL": "http://ia", "adminURL": ""},
                {"region": "B", "publicURL": "http://pb"},
            ]}),
        ]
    }

    #[test]
    fn a_contexts_catalogue() {
        let find = |interface, region| {
            endpoint(&of_context(), "key-manager", interface, region).map(str::to_owned)
        };
        assert_eq!(find(Interface::Public, None).as_deref(), Some("http://pa"));
        assert_eq!(
            find(Interface::Internal, None).as_deref(),
            Some("http://ia")
        );
        assert_eq!(
            find(Interface::Public, Some("B")).as_deref(),
            Some("http://pb")
        );
        assert_eq!(find(Interface::Admin, None), None);
        assert_eq!(find(Interface::Internal, Some("B")), None);
        assert_eq!(
            endpoint(&of_context(), "image", Interface::Public, None),
            None
        );
    }

    #[test]
    fn a_tokens_catalogue() {
        let catalog = [json!({"type": "key-manager", "endpoints": [
            {"interface": "public", "region_id": "A", "region": "A", "url": "http://pa"},
            {"interface": "internal", "region_id": "A", "region": "A", "url": "http://ia"},
            {"interface": "internal", "region_id": "B", "region": "B", "url": "http://ib"},
        ]})];
        let find = |interface, region| endpoint(&catalog, "key-manager", interface, region);
        assert_eq!(find(Interface::Internal, None), Some("http://ia"));
        assert_eq!(find(Interface::Internal, Some("B")), Some("http://ib"));
        assert_eq!(find(Interface::Public, Some("B")), None);
    }

    #[test]
    fn what_is_no_catalogue_names_nothing() {
        let odd = [json!(7), json!({"type": "key-manager", "endpoints": "x"})];
        assert_eq!(endpoint(&odd, "key-manager", Interface::Public, None), None);
    }
}
