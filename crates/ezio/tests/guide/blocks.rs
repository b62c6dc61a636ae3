//! The ```` ```sh ```` blocks of a Markdown file: what they say, where it is to be run, and why not.

/// Where a command is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The machine with the image.
    Server,
    /// A machine that gets it.
    Target,
    /// The machine of a second site that keeps it for its own.
    Site,
}

impl Place {
    pub(crate) const ALL: [Place; 3] = [Place::Server, Place::Target, Place::Site];

    /// What a comment behind a command says of where it is typed. It holds up to the next blank line.
    const COMMENTS: [(&str, Place); 6] = [
        ("on the machine with the image", Place::Server),
        ("the source", Place::Server),
        ("on every other", Place::Target),
        ("each target", Place::Target),
        ("on a target", Place::Target),
        ("at the second site", Place::Site),
    ];

    /// What stands behind `sh` holds for the whole block: ```` ```sh target ````.
    fn of_fence(info: &str) -> Option<Place> {
        match info {
            "sh" | "sh server" => Some(Place::Server),
            "sh target" => Some(Place::Target),
            "sh site" => Some(Place::Site),
            _ => None,
        }
    }
}

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Of its first line, from 1.
    pub(crate) line: usize,
    /// The chapter it stands in.
    pub(crate) heading: String,
    pub(crate) commands: Vec<Command>,
    /// The reason that stands before it, if it is not to be run.
    pub(crate) not_run: Option<String>,
}

/// What a shell takes as one: a line, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl Block {
    /// Whether `line` is one of its own, without what aligns its comment.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.commands.iter().any(|command| command.text.contains(line))
    }
}

/// All blocks of a text.
///
/// # Panics
/// If a fence is none that is known: what is a command shall be run, or say why it is not.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut heading, mut not_run) = (Vec::new(), String::new(), None);
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            let body: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|l| l.trim() != "```").collect();
            let Some(place) = Place::of_fence(info.trim()) else {
                let known = ["", "yaml", "json", "text", "ini"].contains(&info.trim());
                assert!(known, "line {}: a block of `{info}`: is that to be run?", index + 1);
                continue;
            };
            let (heading, not_run) = (heading.clone(), not_run.take());
            let commands = commands(&body, place);
            blocks.push(Block { line: index + 1, heading, commands, not_run });
        } else if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut heading);
        } else if let Some(why) = line.strip_prefix("<!-- not run: ") {
            not_run = Some(why.trim_end_matches("-->").trim().to_owned());
        }
    }
    blocks
}

fn commands(lines: &[&str], place: Place) -> Vec<Command> {
    let (mut commands, mut begun, mut now): (Vec<Command>, String, Place) =
        (Vec::new(), String::new(), place);
    for line in lines {
        if line.trim().is_empty() && begun.is_empty() {
            now = place;
            continue;
        }
        begun.push_str(line);
        begun.push('\n');
        if line.ends_with('\\') || !is_whole(&begun) {
            continue;
        }
        let comment = line.split_once(" # ").map_or("", |(_, comment)| comment.trim());
        let said = Place::COMMENTS.iter().find(|(words, _)| comment.starts_with(words));
        now = said.map_or(now, |(_, place)| *place);
        let text = std::mem::take(&mut begun).trim_end().to_owned();
        if !text.trim_start().starts_with('#') {
            commands.push(Command { text, place: now });
        }
    }
    assert!(begun.is_empty(), "a command does not end: {begun}");
    commands
}

/// Whether a shell would not wait for more.
fn is_whole(text: &str) -> bool {
    lab::tool::run(lab::tool::words("bash -n -c").arg(text)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_into_what_a_shell_takes_at_once() {
        let text = "# A\n\n## B\n\n```sh\na\nfor x in 1 \\\n    2; do\n  $x\ndone\nb # each target\nc\n\n\
                    # only words\nd   # of no place\n```\n<!-- not run: why not -->\n```sh site\ne\n```\n\
                    ```yaml\nf: g\n```\n";
        let found = blocks(text);
        let cut: Vec<Vec<(&str, Place)>> = found
            .iter()
            .map(|block| block.commands.iter().map(|c| (&c.text[..], c.place)).collect())
            .collect();
        let first = vec![
            ("a", Place::Server),
            ("for x in 1 \\\n    2; do\n  $x\ndone", Place::Server),
            ("b # each target", Place::Target),
            ("c", Place::Target),
            ("d   # of no place", Place::Server),
        ];
        assert_eq!(cut, [first, vec![("e", Place::Site)]]);
        let rest: Vec<_> =
            found.iter().map(|b| (b.line, &b.heading[..], b.not_run.as_deref())).collect();
        assert_eq!(rest, [(5, "B", None), (18, "B", Some("why not"))]);
    }
}
