//! The services by which `ros2 param` and other nodes read and change the parameters, and `/parameter_events`.

use std::sync::Arc;

use super::config::ResolvedParams;
use super::live::{Change, LiveParams};
use super::logging::now;
use super::names;
use super::param_rule::Rule;
use super::param_value::ParamValue;
use super::params::{DECLARATIONS, Declaration, DefaultValue};
use crate::msgs::rcl_interfaces::{
    DescribeParameters, DescribeParametersResponse, FloatingPointRange, GetParameterTypes, GetParameterTypesResponse,
    GetParameters, GetParametersResponse, IntegerRange, ListParameters, ListParametersRequest, ListParametersResponse,
    ListParametersResult, Parameter, ParameterDescriptor, ParameterEvent, ParameterType, ParameterValue, SetParameters,
    SetParametersAtomically, SetParametersAtomicallyResponse, SetParametersResponse, SetParametersResult,
};
use crate::msgs::{Message, cdr};
use crate::transport::names::{NodeName, TopicName};
use crate::transport::service::ServiceServer;
use crate::transport::{Publisher, Qos, Transport, TransportError};

/// Where nodes tell of their parameters.
const EVENTS: &str = "/parameter_events";

/// As rclcpp has it, for nodes that change many parameters at once.
const EVENTS_QOS: Qos = Qos { depth: 1000, ..Qos::RELIABLE };

/// Between the parts of a parameter's name.
const SEPARATOR: char = '.';

/// Offers the parameters of `node`; they are gone when the result is dropped.
///
/// # Errors
/// When the middleware refuses.
pub fn offer(live: &Arc<LiveParams>, node: &NodeName, transport: &Transport) -> Result<Vec<ServiceServer>, TransportError> {
    let events = transport.advertise(&TopicName::new(EVENTS)?, &ParameterEvent::TYPE, EVENTS_QOS)?;
    let events = Arc::new(Events { node: node.to_string(), publisher: events });
    let declared = live.current().iter().map(|(name, value)| parameter(name, value)).collect();
    events.tell(declared, Vec::new());

    let service = |name: &str| names::expand(node, &format!("~/{name}"));
    let (get, types, set, set_all) = (Arc::clone(live), Arc::clone(live), Arc::clone(live), Arc::clone(live));
    let (told_one, told_all) = (Arc::clone(&events), events);
    Ok(vec![
        transport.serve::<ListParameters>(&service("list_parameters")?, |asked| list(&asked))?,
        transport.serve::<GetParameters>(&service("get_parameters")?, move |asked| GetParametersResponse {
            values: look_up(&get.current(), &asked.names),
        })?,
        transport.serve::<GetParameterTypes>(&service("get_parameter_types")?, move |asked| GetParameterTypesResponse {
            types: look_up(&types.current(), &asked.names).iter().map(|value| value.r#type).collect(),
        })?,
        transport.serve::<DescribeParameters>(&service("describe_parameters")?, |asked| describe(&asked.names))?,
        transport.serve::<SetParameters>(&service("set_parameters")?, move |asked| SetParametersResponse {
            results: asked.parameters.into_iter().map(|parameter| set_together(&set, &told_one, vec![parameter])).collect(),
        })?,
        transport.serve::<SetParametersAtomically>(&service("set_parameters_atomically")?, move |asked| {
            SetParametersAtomicallyResponse { result: set_together(&set_all, &told_all, asked.parameters) }
        })?,
    ])
}

/// Tells other nodes what changed.
struct Events {
    node: String,
    publisher: Publisher,
}

impl Events {
    fn tell(&self, new_parameters: Vec<Parameter>, changed_parameters: Vec<Parameter>) {
        let event = ParameterEvent {
            stamp: now().into(),
            node: self.node.clone(),
            new_parameters,
            changed_parameters,
            deleted_parameters: Vec::new(),
        };
        if let Err(error) = self.publisher.publish(&cdr::to_bytes(&event)) {
            tracing::warn!("{EVENTS}: {error}");
        }
    }
}

/// Sets all or none, and tells the log and other nodes.
fn set_together(live: &LiveParams, events: &Events, parameters: Vec<Parameter>) -> SetParametersResult {
    let values: Result<Vec<_>, String> = parameters
        .into_iter()
        .map(|Parameter { name, value }| match from_message(&value) {
            Some(value) => Ok((name, value)),
            None => Err(format!("parameter `{name}`: type {} is none of rcl_interfaces/msg/ParameterType", value.r#type)),
        })
        .collect();
    match values.and_then(|values| live.set(&values)) {
        Ok(changes) => {
            for Change { name, before, now } in &changes {
                tracing::info!("parameter `{name}`: {before} -> {now}");
            }
            if !changes.is_empty() {
                events.tell(Vec::new(), changes.iter().map(|change| parameter(change.name, &change.now)).collect());
            }
            SetParametersResult { successful: true, reason: String::new() }
        }
        Err(reason) => {
            tracing::warn!("parameters not changed: {reason}");
            SetParametersResult { successful: false, reason }
        }
    }
}

/// Names under the prefixes; a `depth` of 0 means all, as in rclcpp.
fn list(asked: &ListParametersRequest) -> ListParametersResponse {
    let is_near = |rest: &str| asked.depth == 0 || (rest.matches(SEPARATOR).count() as u64) < asked.depth;
    let is_wanted = |name: &str| {
        let under = |prefix: &String| match name.strip_prefix(prefix.as_str()) {
            Some("") => true,
            Some(rest) => rest.strip_prefix(SEPARATOR).is_some_and(is_near),
            None => false,
        };
        if asked.prefixes.is_empty() { is_near(name) } else { asked.prefixes.iter().any(under) }
    };
    let mut names: Vec<_> = DECLARATIONS.iter().map(|known| known.name.to_owned()).filter(|name| is_wanted(name)).collect();
    names.sort();
    let mut prefixes: Vec<_> =
        names.iter().filter_map(|name| name.rsplit_once(SEPARATOR)).map(|(prefix, _)| prefix.to_owned()).collect();
    prefixes.dedup();
    ListParametersResponse { result: ListParametersResult { names, prefixes } }
}

/// The values of all names; none when one is unknown, as in rclcpp.
fn look_up(params: &ResolvedParams, names: &[String]) -> Vec<ParameterValue> {
    let value = |name: &String| params.get(name).map(to_message);
    names.iter().map(value).collect::<Option<_>>().unwrap_or_default()
}

fn describe(names: &[String]) -> DescribeParametersResponse {
    let known = |name: &String| DECLARATIONS.iter().find(|declaration| declaration.name == name).map(descriptor);
    DescribeParametersResponse { descriptors: names.iter().map(known).collect::<Option<_>>().unwrap_or_default() }
}

fn descriptor(declaration: &Declaration) -> ParameterDescriptor {
    let Declaration { name, default, unit, rule, description, read_only } = *declaration;
    let is_whole = matches!(default, DefaultValue::Integer(_));
    let (mut floating_point_range, mut integer_range) = (Vec::new(), Vec::new());
    match rule {
        Rule::Range(from, to) if is_whole => {
            integer_range.push(IntegerRange { from_value: from as i64, to_value: to as i64, step: 1 });
        }
        // The upper end of a half-open one is refused in words.
        Rule::Range(from_value, to_value) | Rule::HalfOpen(from_value, to_value) => {
            floating_point_range.push(FloatingPointRange { from_value, to_value, step: 0.0 });
        }
        _ => {}
    }
    let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
    ParameterDescriptor {
        name: name.to_owned(),
        r#type: to_message(&default.to_value()).r#type,
        description: description.to_owned(),
        additional_constraints: format!("{rule}{unit}").trim_start().to_owned(),
        read_only,
        dynamic_typing: false,
        floating_point_range,
        integer_range,
    }
}

fn parameter(name: &str, value: &ParamValue) -> Parameter {
    Parameter { name: name.to_owned(), value: to_message(value) }
}

/// Lists are of strings: no parameter of this node is another.
fn to_message(value: &ParamValue) -> ParameterValue {
    let typed = |r#type| ParameterValue { r#type, ..ParameterValue::default() };
    match value {
        ParamValue::Null => typed(ParameterType::NOT_SET),
        ParamValue::Bool(value) => ParameterValue { bool_value: *value, ..typed(ParameterType::BOOL) },
        ParamValue::Integer(value) => ParameterValue { integer_value: *value, ..typed(ParameterType::INTEGER) },
        ParamValue::Double(value) => ParameterValue { double_value: *value, ..typed(ParameterType::DOUBLE) },
        ParamValue::String(value) => ParameterValue { string_value: value.clone(), ..typed(ParameterType::STRING) },
        ParamValue::List(items) => {
            let text = |item: &ParamValue| match item {
                ParamValue::String(text) => text.clone(),
                other => other.to_string(),
            };
            ParameterValue { string_array_value: items.iter().map(text).collect(), ..typed(ParameterType::STRING_ARRAY) }
        }
    }
}

/// `None` for a type that ROS does not define.
fn from_message(value: &ParameterValue) -> Option<ParamValue> {
    fn list<T: Clone>(items: &[T], wrap: fn(T) -> ParamValue) -> ParamValue {
        ParamValue::List(items.iter().cloned().map(wrap).collect())
    }
    Some(match value.r#type {
        ParameterType::NOT_SET => ParamValue::Null,
        ParameterType::BOOL => ParamValue::Bool(value.bool_value),
        ParameterType::INTEGER => ParamValue::Integer(value.integer_value),
        ParameterType::DOUBLE => ParamValue::Double(value.double_value),
        ParameterType::STRING => ParamValue::String(value.string_value.clone()),
        ParameterType::BYTE_ARRAY => list(&value.byte_array_value, |byte| ParamValue::Integer(byte.into())),
        ParameterType::BOOL_ARRAY => list(&value.bool_array_value, ParamValue::Bool),
        ParameterType::INTEGER_ARRAY => list(&value.integer_array_value, ParamValue::Integer),
        ParameterType::DOUBLE_ARRAY => list(&value.double_array_value, ParamValue::Double),
        ParameterType::STRING_ARRAY => list(&value.string_array_value, ParamValue::String),
        _ => return None,
    })
}
