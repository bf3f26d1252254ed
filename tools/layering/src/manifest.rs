//! The few facts of a `Cargo.toml` that the check needs, as the manifests of this workspace write them.

/// The folders of the workspace's packages.
pub(crate) fn members(manifest: &str) -> Vec<String> {
    let list = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let list = list.map_or("", |(list, _)| list);
    list.split(',')
        .map(|member| member.trim().trim_matches('"'))
        .filter(|member| !member.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(crate) fn name(manifest: &str) -> Option<String> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = "))?;
    Some(line.trim().trim_matches('"').to_owned())
}

/// Names of the packages that it is built with; those of its tests do not count.
pub(crate) fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_listing = false;
    for line in manifest.lines() {
        if let Some(section) = line.trim().strip_prefix('[') {
            let section = section.trim_end_matches(']');
            is_listing = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        } else if is_listing {
            let name = line.split(['.', '=', ' ', '#']).next().unwrap_or_default();
            found.extend(Some(name.to_owned()).filter(|name| !name.is_empty()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_and_a_package_are_read() {
        let workspace = "[workspace]\nmembers = [\n    \"crates/a\", \"b\",\n]\n";
        assert_eq!(members(workspace), ["crates/a", "b"]);
        let package = "[package]\nname = \"p\"\n[dependencies]\na.workspace = true # why\nb = \"1\"\n\n[dev-dependencies]\nc = \"1\"\n[target.'cfg(unix)'.dependencies]\nd = { version = \"1\" }\n[lints]\nworkspace = true\n";
        assert_eq!(name(package).unwrap(), "p");
        assert_eq!(dependencies(package), ["a", "b", "d"]);
    }
}
