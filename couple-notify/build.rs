//! Checks the catalogues of mail texts, and generates one function for each message.
//!
//! A message that a locale lacks, a variable that it does not use, or a plural form that its language needs fails the build.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::Path,
    process::ExitCode,
};

use fluent_syntax::{
    ast::{Entry, Expression, InlineExpression, Message, Pattern, PatternElement, VariantKey},
    parser,
};

/// Locales and the plural categories of their cardinal numbers below a million (CLDR).
const LOCALES: [(&str, &[&str]); 8] = [
    ("en", &["one", "other"]),
    ("ar", &["zero", "one", "two", "few", "many", "other"]),
    ("de", &["one", "other"]),
    ("es", &["one", "other"]),
    ("fr", &["one", "other"]),
    ("ja", &["other"]),
    ("ko", &["other"]),
    ("pt-BR", &["one", "other"]),
];

/// Variables that are numbers; all others are text.
const NUMBERS: [&str; 3] = ["count", "day", "month"];

/// Variable with the plural form of `$count`, which a language with one form does not use.
const FORM: &str = "form";

/// Variables of each message.
type Catalogue = BTreeMap<String, BTreeSet<String>>;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=locales");
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), String> {
    let mut english = Catalogue::new();
    for (locale, categories) in LOCALES {
        let file = format!("locales/{locale}.ftl");
        let catalogue = read(&file, categories).map_err(|error| format!("{file}: {error}"))?;
        if english.is_empty() {
            english = catalogue;
            continue;
        }
        for (id, variables) in &english {
            match catalogue.get(id) {
                None => return Err(format!("{file}: message {id} is missing")),
                Some(found) if found != variables => {
                    return Err(format!("{file}: message {id} uses {found:?}, English uses {variables:?}"));
                }
                Some(_) => {}
            }
        }
        if let Some(id) = catalogue.keys().find(|id| !english.contains_key(*id)) {
            return Err(format!("{file}: English has no message {id}"));
        }
    }
    let folder = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    fs::write(Path::new(&folder).join("messages.rs"), functions(&english)).map_err(|error| error.to_string())
}

fn read(file: &str, categories: &[&str]) -> Result<Catalogue, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let resource = parser::parse(text.as_str()).map_err(|(_, errors)| format!("{errors:?}"))?;
    let mut catalogue = Catalogue::new();
    for entry in &resource.body {
        match entry {
            Entry::Message(message) => {
                let id = message.id.name;
                let variables = variables(message, categories).map_err(|error| format!("{id}: {error}"))?;
                if catalogue.insert(id.to_owned(), variables).is_some() {
                    return Err(format!("{id} is there twice"));
                }
            }
            Entry::Comment(_) | Entry::GroupComment(_) | Entry::ResourceComment(_) => {}
            other => return Err(format!("only messages are supported, not {other:?}")),
        }
    }
    Ok(catalogue)
}

fn variables(message: &Message<&str>, categories: &[&str]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    visit(message.value.as_ref().ok_or("no text")?, categories, &mut found)?;
    if found.remove(FORM) && !found.contains("count") {
        return Err("uses $form without $count".to_owned());
    }
    Ok(found)
}

fn visit(pattern: &Pattern<&str>, categories: &[&str], found: &mut BTreeSet<String>) -> Result<(), String> {
    for element in &pattern.elements {
        let PatternElement::Placeable { expression } = element else { continue };
        let (Expression::Inline(inline) | Expression::Select { selector: inline, .. }) = expression;
        let InlineExpression::VariableReference { id } = inline else {
            return Err(format!("only variables are supported, not {inline:?}"));
        };
        found.insert(id.name.to_owned());
        let Expression::Select { variants, .. } = expression else { continue };
        let keys = variants.iter().map(|variant| match variant.key {
            VariantKey::Identifier { name } => name.to_owned(),
            VariantKey::NumberLiteral { value } => value.to_owned(),
        });
        let keys: Vec<_> = keys.collect();
        let expected: Vec<_> = match id.name {
            "month" => (1..=12).map(|month: u8| month.to_string()).collect(),
            FORM => categories.iter().map(ToString::to_string).collect(),
            other => return Err(format!("${other} has no forms")),
        };
        if keys != expected {
            return Err(format!("the forms for ${} are {keys:?}, not {expected:?}", id.name));
        }
        for variant in variants {
            visit(&variant.value, categories, found)?;
        }
    }
    Ok(())
}

/// One method for each message, so that the compiler knows each message and its variables.
fn functions(catalogue: &Catalogue) -> String {
    let mut code = String::from("impl super::Catalogue {\n");
    for (id, variables) in catalogue {
        let (name, mut parameters, mut arguments) = (id.replace('-', "_"), String::new(), String::new());
        for variable in variables {
            let kind = if NUMBERS.contains(&variable.as_str()) { "u64" } else { "&str" };
            let _ = write!(parameters, ", {variable}: {kind}");
            let _ = write!(arguments, "({variable:?}, {variable}.into()), ");
            if variable == "count" {
                let _ = write!(arguments, "({FORM:?}, self.form(count).into()), ");
            }
        }
        let _ = writeln!(
            code,
            "    pub(crate) fn {name}(&self{parameters}) -> String {{ self.format({id:?}, [{arguments}]) }}"
        );
    }
    code.push_str("}\n");
    code
}
