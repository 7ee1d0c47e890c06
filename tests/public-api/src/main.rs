//! Compares the public API of each crate, from rustdoc's JSON, with its checked-in list.
//!
//! `public-api-check DOC_FOLDER LIST_FOLDER [--update]`. A crate is in the lists if it has one, `LIST_FOLDER/NAME.txt`.

use std::{collections::BTreeSet, error::Error, fs, path::Path, process::ExitCode};

use public_api::Builder;
use serde::Deserialize;

/// Part of rustdoc's JSON whose place is the same in each format.
#[derive(Deserialize)]
struct Format {
    format_version: u32,
}

/// Public items, one a line. Derived, automatic and blanket implementations are left out.
fn items(json: &Path) -> Result<String, Box<dyn Error>> {
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .sorted(true)
        .build()?;
    let mut lines: Vec<String> = api.items().map(ToString::to_string).collect();
    // An item that is re-exported twice has the same text each time.
    lines.dedup();
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// Lines of `new` that are not in `old`, after a sign.
fn only_in(new: &str, old: &str, sign: &str) -> String {
    let old: BTreeSet<&str> = old.lines().collect();
    new.lines().filter(|line| !old.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (docs, lists, update) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [docs, lists] => (Path::new(docs), Path::new(lists), false),
        [docs, lists, "--update"] => (Path::new(docs), Path::new(lists), true),
        _ => return Err("usage: public-api-check DOC_FOLDER LIST_FOLDER [--update]".into()),
    };
    let mut lists: Vec<_> =
        fs::read_dir(lists)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    lists.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    lists.sort();
    if lists.is_empty() {
        return Err("there is no list of a crate".into());
    }
    let mut differs = false;
    for list in lists {
        let name = list.file_stem().and_then(|name| name.to_str()).ok_or("a list has no name")?;
        let json = docs.join(name.replace('-', "_")).with_extension("json");
        let text = fs::read_to_string(&json).map_err(|error| format!("{}: {error}", json.display()))?;
        let Format { format_version } = serde_json::from_str(&text)?;
        let known = rustdoc_types::FORMAT_VERSION;
        if format_version != known {
            println!(
                "not checked: the public API, because this rustdoc writes format {format_version}, not {known}"
            );
            return Ok(ExitCode::SUCCESS);
        }
        let (old, new) = (fs::read_to_string(&list)?, items(&json)?);
        if update {
            fs::write(&list, new)?;
        } else if old != new {
            differs = true;
            println!("public API of {name}:\n{}{}", only_in(&old, &new, "-"), only_in(&new, &old, "+"));
        }
    }
    if differs {
        println!("if the change is intended, run tests/public-api/check --update and commit the lists");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
