//! The JSON schema of scenario files, for editors that complete and check TOML.
//!
//! It is found out from the tables that files are read into: their keys, types and values by asking their `Deserialize`
//! ([`trace`]), how quantities are written by what they say they expect ([`values`]), and what keys mean from the tables in
//! the documentation of [`super`] ([`docs`]). So a new key is in the schema as soon as it can be read.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::expectation::table::ExpectTable;
use super::fault::table::FaultTable;
use super::firewall::FirewallTable;
use super::nat::NatTable;
use super::probing::{ForwardTable, NatProbeTable, StunServerTable};
use super::raw::{
    AnnounceTable, BrokerTable, ClientTable, GrapeTable, Head, LinkTable, LookupTable, NodeTable, WorkerTable,
};

mod docs;
mod trace;
mod values;

use docs::Docs;
use trace::{Shape, Step, trace};

/// The JSON schema of scenario files (draft 7, which editors know best), as text with a newline at its end.
///
/// A file that it refuses is wrong; one that it takes may still name what is not there. Tables with a `name` may lack keys:
/// they may change one of a file that is extended.
///
/// ```
/// let schema: serde_json::Value = serde_json::from_str(&grenache_sim::scenario::schema()).unwrap();
/// let latency = &schema["definitions"]["LinkTable"]["properties"]["latency"];
/// assert_eq!(latency["examples"][0], "20ms");
/// ```
pub fn schema() -> String {
    let mut builder = Builder { definitions: Map::new(), docs: Docs::read() };
    let mut top = builder.head();
    for (key, mut table, many) in [
        ("nat", builder.table::<NatTable>("nat"), true),
        ("link", builder.table::<LinkTable>("link"), false),
        ("node", builder.table::<NodeTable>("node"), true),
        ("firewall", builder.table::<FirewallTable>("firewall"), false),
    ] {
        if many {
            let count = json!({
                "type": "integer", "minimum": 1, "maximum": 60_000,
                "description": builder.docs.of(key, "count"),
            });
            builder.add_property(&table, "count", count);
        }
        table = json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,63}$" },
            "additionalProperties": table,
        });
        top.insert(key.to_owned(), table);
    }
    let programs = [
        ("grape", builder.table::<GrapeTable>("grape")),
        ("announce", builder.table::<AnnounceTable>("announce")),
        ("lookup", builder.table::<LookupTable>("lookup")),
        ("broker", builder.table::<BrokerTable>("broker")),
        ("worker", builder.table::<WorkerTable>("worker")),
        ("client", builder.table::<ClientTable>("client")),
        ("stun-server", builder.table::<StunServerTable>("stun-server")),
        ("nat-probe", builder.table::<NatProbeTable>("nat-probe")),
        ("forward", builder.table::<ForwardTable>("forward")),
    ];
    for (run, table) in &programs {
        builder.add_property(table, "run", json!({ "const": run, "description": builder.docs.of("run", run) }));
    }
    let programs: Vec<Value> = programs.into_iter().map(|(_, table)| table).collect();
    let change = builder.change(&programs);
    let programs = [programs, vec![change]].concat();
    top.insert("program".to_owned(), json!({ "type": "array", "items": { "anyOf": programs } }));
    for (key, table) in
        [("fault", builder.table::<FaultTable>("fault")), ("expect", builder.table::<ExpectTable>("expect"))]
    {
        let change = builder.change(std::slice::from_ref(&table));
        let name = json!({ "type": "string", "minLength": 1, "description": "for files that extend this one" });
        builder.add_property(&table, "name", name);
        top.insert(key.to_owned(), json!({ "type": "array", "items": { "anyOf": [table, change] } }));
    }
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "grenache scenario",
        "description": "which hosts there are, what runs on them, what goes wrong, and what must happen",
        "type": "object",
        "properties": top,
        "additionalProperties": false,
        "definitions": builder.definitions,
    });
    let mut text = serde_json::to_string_pretty(&schema).expect("JSON is text");
    text.push('\n');
    text
}

struct Builder {
    definitions: Map<String, Value>,
    docs: Docs,
}

impl Builder {
    /// The keys above the tables.
    fn head(&mut self) -> Map<String, Value> {
        self.table::<Head>("top");
        let head = self.definitions.remove("Head").unwrap_or_default();
        let mut top = head["properties"].as_object().cloned().unwrap_or_default();
        let file = json!({ "type": "string", "minLength": 1 });
        let extends = json!({
            "anyOf": [file, { "type": "array", "items": file }],
            "description": self.docs.of("top", "extends"),
        });
        let remove = json!({
            "type": "array",
            "items": { "type": "string", "pattern": r"^((nat|link|node|firewall|program|fault|expect)\..+|program|fault|expect)$" },
            "description": self.docs.of("top", "remove"),
        });
        top.insert("extends".to_owned(), extends);
        top.insert("remove".to_owned(), remove);
        top
    }

    /// A table that is read as `T`, documented under `called`.
    fn table<T: DeserializeOwned>(&mut self, called: &str) -> Value {
        let (schema, _) = self.build::<T>(&mut Vec::new(), called);
        if let Some(name) = definition(&schema) {
            // Keys that may be left out though their types do not say so have a default.
            let required: Vec<String> = strings(&self.definitions[name]["required"]);
            let example = |left_out: &str| -> Map<String, Value> {
                let keys = required.iter().filter(|key| *key != left_out);
                keys.map(|key| (key.clone(), values::example(&self.definitions[name]["properties"][key]))).collect()
            };
            let text = |left_out: &str| toml::to_string(&example(left_out)).unwrap_or_default();
            let needed = |key: &str| toml::from_str::<T>(&text(key)).is_err();
            let required: Vec<Value> = required.iter().filter(|key| needed(key)).map(|key| json!(key)).collect();
            self.definitions[name]["required"] = json!(required);
        }
        schema
    }

    /// What `T` reads at a place in it, and whether that may be left out.
    fn build<T: DeserializeOwned>(&mut self, way: &mut Vec<Step>, called: &str) -> (Value, bool) {
        let (shape, optional) = trace::<T>(way);
        let schema = match shape {
            Shape::Struct { name, fields } => {
                if !self.definitions.contains_key(name) {
                    // It may be a part of itself.
                    self.definitions.insert(name.to_owned(), Value::Null);
                    let (mut properties, mut required) = (Map::new(), Vec::new());
                    for field in fields {
                        way.push(Step::Field(field));
                        let (mut schema, optional) = self.build::<T>(way, called);
                        way.pop();
                        if way.is_empty() {
                            schema = described(schema, self.docs.of(called, field));
                        }
                        properties.insert((*field).to_owned(), schema);
                        if !optional {
                            required.push(*field);
                        }
                    }
                    let table = json!({
                        "type": "object",
                        "properties": properties,
                        "required": required,
                        "additionalProperties": false,
                    });
                    self.definitions.insert(name.to_owned(), table);
                }
                json!({ "$ref": format!("#/definitions/{name}") })
            }
            Shape::List => {
                way.push(Step::Item);
                let (items, _) = self.build::<T>(way, called);
                way.pop();
                json!({ "type": "array", "items": items })
            }
            Shape::Choice(choices) => json!({ "enum": choices }),
            Shape::Text => json!({ "type": "string" }),
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Ignored => json!({}),
            Shape::Other(expected) => values::schema(&expected),
        };
        (schema, optional)
    }

    fn add_property(&mut self, table: &Value, key: &str, schema: Value) {
        if let Some(name) = definition(table) {
            self.definitions[name]["properties"][key] = schema;
        }
    }

    /// A table that changes one of these in a file that is extended: it has its name, and any of their keys.
    fn change(&self, tables: &[Value]) -> Value {
        let mut properties = Map::new();
        for name in tables.iter().filter_map(definition) {
            for (key, schema) in self.definitions[name]["properties"].as_object().into_iter().flatten() {
                // `run` is another constant for each.
                let schema = if key == "run" { json!({ "type": "string" }) } else { schema.clone() };
                match properties.get_mut(key) {
                    None => {
                        properties.insert(key.clone(), schema);
                    }
                    Some(other) if *other != schema => *other = json!({ "anyOf": [other, schema] }),
                    Some(_) => {}
                }
            }
        }
        let description = "the name of a table that this one changes, or by which others may change it";
        properties.insert("name".to_owned(), json!({ "type": "string", "minLength": 1, "description": description }));
        json!({ "type": "object", "properties": properties, "required": ["name"], "additionalProperties": false })
    }
}

/// The name of the definition that a schema refers to.
fn definition(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/definitions/")
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// A schema with a description. Beside a reference nothing else counts in draft 7.
fn described(schema: Value, description: Option<String>) -> Value {
    let Some(description) = description else { return schema };
    match schema {
        Value::Object(mut object) if !object.contains_key("$ref") => {
            object.insert("description".to_owned(), description.into());
            object.into()
        }
        schema => json!({ "allOf": [schema], "description": description }),
    }
}
