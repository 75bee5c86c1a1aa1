//! The Parquet schema as a tree of Arrow-like nodes with the levels at which they exist.
//!
//! A slot is one entry of a node's column: a row at the top, an element inside a list. With Dremel's levels (definition d,
//! repetition r; Melnik et al. 2010, section 4) an entry opens a slot of a node when r <= node.rep and d >= node.slot_def, and the slot
//! is not null when d >= node.def.

use crate::Error;
use crate::abi::STATUS_UNSUPPORTED;
use ::parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use ::parquet::schema::types::{SchemaDescriptor, Type};

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float32,
    Float64,
    Utf8,
    Binary,
    /// Values of a fixed width in bytes.
    Fixed(usize),
    Struct,
    /// One child: the element. `element_def` is the definition level of an entry that holds an element.
    List {
        element_def: i16,
    },
}

/// A column or a part of one.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    /// Definition level of a slot that is not null.
    pub def: i16,
    /// Definition level of an entry that has a slot here.
    pub slot_def: i16,
    /// Repeated ancestors.
    pub rep: i16,
    /// First leaf column at or below this node.
    pub leaf: usize,
    pub children: Vec<Node>,
}

struct Builder<'a> {
    schema: &'a SchemaDescriptor,
    leaf: usize,
}

#[derive(Clone, Copy)]
struct Levels {
    def: i16,
    slot_def: i16,
    rep: i16,
}

/// Builds the nodes of the top-level fields.
pub fn nodes(schema: &SchemaDescriptor) -> Result<Vec<Node>, Error> {
    let mut builder = Builder { schema, leaf: 0 };
    let top = Levels { def: 0, slot_def: 0, rep: 0 };
    schema.root_schema().get_fields().iter().map(|field| builder.field(field, top)).collect()
}

impl Builder<'_> {
    fn field(&mut self, field: &Type, levels: Levels) -> Result<Node, Error> {
        match field.get_basic_info().repetition() {
            Repetition::REPEATED => self.list(field.name(), false, field, levels, false),
            Repetition::OPTIONAL => self.value(field, true, Levels { def: levels.def + 1, ..levels }),
            Repetition::REQUIRED => self.value(field, false, levels),
        }
    }

    /// The node of a field apart from its own repetition, which is in `levels` already.
    fn value(&mut self, field: &Type, nullable: bool, levels: Levels) -> Result<Node, Error> {
        let name = field.name();
        if field.is_primitive() {
            let kind = leaf_kind(field)?;
            let leaf = self.leaf;
            if leaf >= self.schema.num_columns() {
                return Err(unsupported(name, "it has no column"));
            }
            self.leaf += 1;
            return Ok(node(name, kind, nullable, levels, leaf, Vec::new()));
        }
        if let Some(repeated) = list_body(field) {
            let single = !repeated.is_primitive()
                && repeated.get_fields().len() == 1
                && repeated.name() != "array"
                && repeated.name() != format!("{name}_tuple")
                && !is_map(field);
            return self.list(name, nullable, repeated, levels, single);
        }
        let leaf = self.leaf;
        let children = field.get_fields().iter().map(|f| self.field(f, levels)).collect::<Result<Vec<_>, _>>()?;
        if children.is_empty() {
            return Err(unsupported(name, "it is a group without fields"));
        }
        Ok(node(name, Kind::Struct, nullable, levels, leaf, children))
    }

    /// A list whose elements are `repeated` itself or, where `unwrap` says so, its only field.
    fn list(
        &mut self,
        name: &str,
        nullable: bool,
        repeated: &Type,
        levels: Levels,
        unwrap: bool,
    ) -> Result<Node, Error> {
        let leaf = self.leaf;
        let element_def = levels.def + 1;
        let inner = Levels { def: element_def, slot_def: element_def, rep: levels.rep + 1 };
        let element =
            if unwrap { self.field(&repeated.get_fields()[0], inner)? } else { self.value(repeated, false, inner)? };
        Ok(node(name, Kind::List { element_def }, nullable, levels, leaf, vec![element]))
    }
}

fn node(name: &str, kind: Kind, nullable: bool, levels: Levels, leaf: usize, children: Vec<Node>) -> Node {
    let Levels { def, slot_def, rep } = levels;
    Node { name: name.to_string(), kind, nullable, def, slot_def, rep, leaf, children }
}

fn is_map(field: &Type) -> bool {
    let info = field.get_basic_info();
    matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
        || matches!(info.logical_type_ref(), Some(LogicalType::Map))
}

/// The repeated child of a group that stands for a list or a map.
fn list_body(field: &Type) -> Option<&Type> {
    let info = field.get_basic_info();
    let list = is_map(field)
        || info.converted_type() == ConvertedType::LIST
        || matches!(info.logical_type_ref(), Some(LogicalType::List));
    match field.get_fields() {
        [only] if list && only.get_basic_info().repetition() == Repetition::REPEATED => Some(only),
        _ => None,
    }
}

fn leaf_kind(field: &Type) -> Result<Kind, Error> {
    let Type::PrimitiveType { basic_info, physical_type, type_length, .. } = field else {
        return Err(unsupported(field.name(), "it is a group"));
    };
    let unsigned = matches!(basic_info.logical_type_ref(), Some(LogicalType::Integer(int)) if !int.is_signed)
        || matches!(
            basic_info.converted_type(),
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        );
    let text =
        matches!(basic_info.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum | LogicalType::Json))
            || matches!(basic_info.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON);
    Ok(match physical_type {
        Physical::BOOLEAN => Kind::Bool,
        Physical::INT32 => [Kind::Int32, Kind::Uint32][usize::from(unsigned)].clone(),
        Physical::INT64 => [Kind::Int64, Kind::Uint64][usize::from(unsigned)].clone(),
        Physical::INT96 => Kind::Fixed(12),
        Physical::FLOAT => Kind::Float32,
        Physical::DOUBLE => Kind::Float64,
        Physical::BYTE_ARRAY => [Kind::Binary, Kind::Utf8][usize::from(text)].clone(),
        Physical::FIXED_LEN_BYTE_ARRAY => match usize::try_from(*type_length) {
            Ok(width) if width > 0 => Kind::Fixed(width),
            _ => return Err(unsupported(basic_info.name(), &format!("its values have {type_length} bytes"))),
        },
    })
}

fn unsupported(name: &str, what: &str) -> Error {
    Error::new(
        STATUS_UNSUPPORTED,
        format!("Cannot read column {name:?}: {what}, expected a plain, list or struct column"),
    )
}

impl Node {
    fn type_name(&self) -> String {
        match &self.kind {
            Kind::Bool => "bool".into(),
            Kind::Int32 => "int32".into(),
            Kind::Uint32 => "uint32".into(),
            Kind::Int64 => "int64".into(),
            Kind::Uint64 => "uint64".into(),
            Kind::Float32 => "float32".into(),
            Kind::Float64 => "float64".into(),
            Kind::Utf8 => "utf8".into(),
            Kind::Binary => "binary".into(),
            Kind::Fixed(width) => format!("fixed:{width}"),
            Kind::Struct => "struct".into(),
            Kind::List { .. } => "list".into(),
        }
    }

    /// The node as JSON: {name, type, nullable, children}.
    pub fn json(&self) -> String {
        let children: Vec<String> = self.children.iter().map(Node::json).collect();
        format!(
            "{{\"name\":{},\"type\":\"{}\",\"nullable\":{},\"children\":[{}]}}",
            json_string(&self.name),
            self.type_name(),
            self.nullable,
            children.join(",")
        )
    }
}

/// A JSON string literal.
pub fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
