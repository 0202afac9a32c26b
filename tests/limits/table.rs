//! The table of limits in `src/limits.rs` names tests that there are.

use std::fs;
use std::path::Path;

/// The names in backticks of each row's last column.
fn rows(text: &str) -> Vec<(&str, Vec<&str>)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix('|'));
    let rows = rows.filter(|row| !row.starts_with("limit |"));
    rows.map(|row| {
        let (limit, tests) = row.trim_end().rsplit_once('|').expect("it has columns");
        (limit, tests.split('`').skip(1).step_by(2).collect())
    })
    .collect()
}

/// Whether there is such a file, or folder, with a test in it.
fn has_tests(path: &Path) -> bool {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().any(|entry| has_tests(&entry.unwrap().path()));
    }
    fs::read_to_string(path).is_ok_and(|text| text.contains("#[test]") || text.contains("#[tokio::test"))
}

#[test]
fn every_limit_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/limits.rs")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() > 50, "only {} rows were found", rows.len());
    for (limit, tests) in rows {
        assert!(!tests.is_empty(), "no test: {limit}");
        for test in tests {
            let path = test.replace("::", "/");
            let places = ["tests", "src", "."].map(|folder| root.join(folder).join(&path));
            let found = places.iter().any(|place| has_tests(&place.with_extension("rs")) || has_tests(place));
            assert!(found, "there is no {test} with tests, which is to be that of {limit}");
        }
    }
}
