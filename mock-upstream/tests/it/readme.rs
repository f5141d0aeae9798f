//! What the README says is so.

use mock_upstream::{Act, Preset, Rules, method};

const README: &str = include_str!("../../README.md");

#[test]
fn the_rules_of_the_readme_are_rules() {
    let blocks: Vec<&str> = README.split("```toml\n").skip(1).collect();
    assert_eq!(blocks.len(), 1);
    let (block, _) = blocks[0].split_once("```").unwrap();
    assert_eq!(Rules::from_toml(block).unwrap().rule.len(), 4);
}

#[test]
fn every_act_preset_and_method_is_in_the_readme() {
    let (_, acts) = README.split_once("| act | does | to |").unwrap();
    for act in Act::examples() {
        let name = act.name();
        let written = [format!("`{name}`"), format!("{{ {name} =")];
        assert!(written.iter().any(|form| acts.contains(form.as_str())), "{name}");
    }
    for preset in Preset::ALL {
        assert!(README.contains(&format!("`{preset}`")), "{preset}");
    }
    for name in method::ALL {
        let short = name.rsplit('.').next().unwrap();
        assert!(README.contains(&format!("{short}`")), "{name}");
    }
}

#[test]
fn every_act_has_an_example_and_can_be_done_to_something() {
    let examples = Act::examples();
    let names: std::collections::BTreeSet<_> = examples.iter().map(Act::name).collect();
    assert_eq!(names.len(), examples.len());
    for act in &examples {
        assert!(method::ALL.iter().any(|method| act.applies_to(method)), "{act:?}");
        let text = serde_json::to_string(act).unwrap();
        assert!(text.contains(act.name()), "{text}");
        assert_eq!(serde_json::from_str::<Act>(&text).unwrap(), *act);
    }
    // The number of variants: serde names them all when it is told nonsense.
    let error = serde_json::from_str::<Act>(r#""nonsense""#)
        .unwrap_err()
        .to_string();
    let (_, expected) = error.split_once("expected one of").unwrap();
    assert_eq!(expected.matches('`').count(), 2 * examples.len(), "{error}");
}
