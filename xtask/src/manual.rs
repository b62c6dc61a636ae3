//! `cargo xtask manual`: man pages and completions, from the same source as `--help`.

use anyhow::Context as _;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes a page for the program and one for each command, and completions for three shells, each
/// under the name by which it is looked for.
///
/// # Errors
/// What could not be written.
pub(crate) fn write(dir: &Path) -> anyhow::Result<()> {
    let (pages, completions) = (dir.join("man1"), dir.join("completions"));
    for dir in [&pages, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    clap_mangen::generate_to(ezio::cli::command(), &pages).context("write the man pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut ezio::cli::command(), "ezio", &completions)
            .context("write the completions")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_command_has_a_page_that_groff_takes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        for command in ezio::cli::command().get_subcommands() {
            let name = format!("ezio-{}.1", command.get_name());
            let page = dir.path().join("man1").join(&name);
            let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{name}: {e}"));
            // Up to what roff writes in its own way.
            let about = command.get_about().unwrap().to_string();
            let words = about.split(['\'', '`', '-']).next().unwrap();
            assert!(text.contains(words), "{name} does not say `{words}`");
        }
        if Command::new("groff").arg("--version").output().is_err() {
            ::lab::skip!("no groff");
        }
        for page in fs::read_dir(dir.path().join("man1")).unwrap() {
            let page = page.unwrap().path();
            let output =
                Command::new("groff").args(["-man", "-ww", "-z"]).arg(&page).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }

    #[test]
    fn bash_completes_commands_and_options() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let complete = |words: &str| {
            let script = r#"source "$0" && words=($1) && COMP_WORDS=("${words[@]}") &&
                COMP_CWORD=$((${#words[@]} - 1)) &&
                _ezio ezio "${words[-1]}" "${words[-2]}" && echo "${COMPREPLY[@]}""#;
            let path = dir.path().join("completions/ezio.bash");
            let output =
                Command::new("bash").args(["-c", script]).arg(path).arg(words).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(complete("ezio dep"), "deploy");
        assert_eq!(complete("ezio deploy --reu"), "--reuse");
    }
}
