//! Keys from a program that a profile names (`credential_process`), where an operator allows that.
//!
//! The command is split into words as a shell would, but no shell runs: nothing is expanded, and the program is an absolute
//! path. It sees `HOME` and a plain `PATH`, nothing else.
//! Source of truth: "Process credential provider" of the AWS SDKs reference guide.
//!
//! Invariants: `programs_run_only_where_that_was_allowed`, `commands_are_words_and_nothing_is_expanded`,
//! `what_a_program_says_never_shows`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::container::Answer;
use crate::cloud::aws::Ask;
use crate::cloud::aws::keys::Keys;
use crate::cloud::aws::settings::CredentialProcess;
use crate::cloud::{CloudError, json};
use crate::process::{Run, RunErrorKind, run};

/// Longest run: some ask services of their own.
const LIMIT: Duration = Duration::from_secs(20);
/// Most output; keys have about 1 KiB.
const OUTPUT_BYTES: usize = 64 * 1024;
/// Where the program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program.
///
/// # Errors
/// [`CloudError::Settings`] names the profile, without what the program said.
pub(super) async fn keys(ask: &Ask<'_>, named_by: &str, command: &str) -> Result<Keys, CloudError> {
    let wrong = |problem: String| CloudError::Settings { what: named_by.to_owned(), problem };
    match ask.settings.credential_process {
        CredentialProcess::Refused => {
            return Err(wrong(
                "gets its keys from a credential_process, which is run only where --allow-credential-process or credentials.ecrCredentialProcess allows it".to_owned(),
            ));
        }
        CredentialProcess::Allowed => {}
    }
    let unreadable = || wrong("has a credential_process that is no command".to_owned());
    let mut words = words(command).ok_or_else(unreadable)?.into_iter();
    let program = PathBuf::from(words.next().ok_or_else(unreadable)?);
    if !program.is_absolute() {
        return Err(wrong("has a credential_process that is no absolute path".to_owned()));
    }
    let shown = program.display().to_string();
    let home = ask.settings.variable("HOME").map(|home| ("HOME".into(), home.value().into()));
    let task = Run {
        program,
        args: words.map(Into::into).collect(),
        environment: home.into_iter().chain([("PATH".into(), PATH.into())]).collect(),
        input: Zeroizing::new(Vec::new()),
        timeout: LIMIT.min(ask.deadline.left(std::time::Instant::now())),
        output_bytes: OUTPUT_BYTES,
        error_bytes: 0,
    };
    let ran = run(task).await.map_err(|error| match error.kind {
        RunErrorKind::Io(error) => wrong(format!("runs {shown}, which failed: {error}")),
        RunErrorKind::Timeout => wrong(format!("runs {shown}, which did not end in time")),
        RunErrorKind::TooLarge => wrong(format!("runs {shown}, which says more than 64 KiB")),
    })?;
    if !ran.status.success() {
        return Err(wrong(format!("runs {shown}, which failed: {}", ran.status)));
    }
    let mut keys = json::read::<Answer>(&shown, &ran.output)?.keys(&shown)?;
    keys.source = format!("the program {}", Path::new(&shown).display());
    Ok(keys)
}

/// Words, with quotes of both kinds and backslashes; `None` if a quote is open at the end.
fn words(command: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_words_and_nothing_is_expanded() {
        let table: [(&str, Option<&[&str]>); 8] = [
            ("/bin/keys --json", Some(&["/bin/keys", "--json"])),
            ("  /bin/keys\t a  ", Some(&["/bin/keys", "a"])),
            (r#""/opt/my keys/run" 'it is' """#, Some(&["/opt/my keys/run", "it is", ""])),
            (r"/bin/a\ b $HOME `id` ;x", Some(&["/bin/a b", "$HOME", "`id`", ";x"])),
            (r#"/bin/a "x\"y" 'x\y'"#, Some(&["/bin/a", "x\"y", r"x\y"])),
            ("", Some(&[])),
            ("/bin/a 'open", None),
            ("/bin/a \\", None),
        ];
        for (command, want) in table {
            let got = words(command);
            assert_eq!(
                got.as_deref().map(|w| w.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
                want,
                "{command}"
            );
        }
    }
}
