use clap::CommandFactory;

use super::*;

/// Every line of a help text that begins with `trireme `, before it is wrapped.
fn examples(command: &clap::Command, found: &mut Vec<String>) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    found.extend(help.lines().map(str::trim).filter(|line| line.starts_with("trireme ")).map(str::to_owned));
    for verb in command.get_subcommands() {
        examples(verb, found);
    }
}

fn verbs(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let has_example = help.contains(&format!("{path} ")) || help.contains(&format!("{path}\n"));
        if verb.get_subcommands().next().is_none() {
            found.push((path.clone(), has_example));
        }
        verbs(verb, &path, found);
    }
}

#[test]
fn every_example_in_a_help_text_parses() {
    let mut found = Vec::new();
    examples(&Cli::command(), &mut found);
    assert!(found.len() >= 15, "only {} examples", found.len());
    for example in found {
        let command = example.split(" > ").next().unwrap().split_whitespace();
        let parsed = Cli::try_parse_from(command);
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
    }
}

#[test]
fn every_verb_shows_an_example() {
    let mut found = Vec::new();
    verbs(&Cli::command(), "trireme", &mut found);
    let without: Vec<_> = found.iter().filter(|(_, has_example)| !has_example).collect();
    assert!(found.len() >= 9 && without.is_empty(), "{without:?}");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_port_is_a_number_with_an_optional_protocol() {
    let tcp = |port| Ok(Service { port, protocol: Protocol::TCP });
    assert_eq!("80".parse(), tcp(80));
    assert_eq!("80/tcp".parse(), tcp(80));
    assert_eq!("53/udp".parse(), Ok(Service { port: 53, protocol: Protocol::UDP }));
    for (text, error) in [
        ("0", "a port is 1 to 65535, as in 80/tcp, not \"0\""),
        ("http", "a port is 1 to 65535, as in 80/tcp, not \"http\""),
        ("80/http", "a protocol is tcp, udp or sctp, not \"http\""),
    ] {
        assert_eq!(text.parse::<Service>(), Err(error.to_owned()));
    }
}
