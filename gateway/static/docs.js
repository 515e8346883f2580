// The API reference, drawn from /openapi.json.

const root = document.getElementById("reference");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const nameOf = (schema) => schema?.$ref?.split("/").pop();

function resolve(schema, spec) {
  return schema?.$ref ? spec.components.schemas[nameOf(schema)] : schema;
}

function typeOf(schema) {
  if (!schema) return "any";
  if (schema.$ref) return nameOf(schema);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `${typeOf(schema.items)}[]`;
  return schema.type ?? "any";
}

function bounds(schema) {
  const inner = schema.anyOf?.find((each) => each.type !== "null") ?? schema;
  const found = [];
  if (inner.minimum !== undefined) found.push(`≥ ${inner.minimum}`);
  if (inner.exclusiveMinimum !== undefined) found.push(`> ${inner.exclusiveMinimum}`);
  if (inner.maximum !== undefined) found.push(`≤ ${inner.maximum}`);
  if (inner.minLength) found.push(`at least ${inner.minLength} characters`);
  if (inner.maxLength) found.push(`at most ${inner.maxLength} characters`);
  if (schema.default !== undefined && schema.default !== null) found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join(", ");
}

function fields(schema, spec) {
  const resolved = resolve(schema, spec);
  const table = make("table");
  const head = make("tr");
  for (const title of ["Field", "Type", ""]) head.append(make("th", "", title));
  table.append(head);
  for (const [name, property] of Object.entries(resolved?.properties ?? {})) {
    const row = make("tr");
    const required = resolved.required?.includes(name);
    const first = make("td");
    first.append(make("code", "", name), required ? " (required)" : "");
    row.append(first, make("td", "", typeOf(property)), make("td", "", [property.description, bounds(property)].filter(Boolean).join(" ")));
    table.append(row);
  }
  return table;
}

function operation(path, method, spec) {
  const found = spec.paths[path][method];
  const block = make("details", "operation");
  const summary = make("summary");
  summary.append(make("span", "method", method.toUpperCase()), make("code", "", path), make("span", "", found.summary ?? ""));
  const body = make("div");
  body.append(make("p", "", found.description ?? ""));
  const scopes = found["x-required-scopes"];
  body.append(make("p", "hint", scopes ? `Scopes: ${scopes.join(", ")}` : "No token needed."));
  if (found.parameters?.length) {
    const properties = Object.fromEntries(found.parameters.map((each) => [each.name, { ...each.schema, description: each.description }]));
    const required = found.parameters.filter((each) => each.required).map((each) => each.name);
    body.append(make("h3", "", "Parameters"), fields({ properties, required }, spec));
  }
  for (const [type, { schema }] of Object.entries(found.requestBody?.content ?? {})) {
    body.append(make("h3", "", `Body: ${type} ${nameOf(schema) ?? ""}`), fields(schema, spec));
  }
  for (const [status, response] of Object.entries(found.responses)) {
    const schema = response.content?.["application/json"]?.schema;
    if (status !== "default" && nameOf(schema)) body.append(make("h3", "", `${status}: ${nameOf(schema)}`), fields(schema, spec));
  }
  block.append(summary, body);
  return block;
}

function draw(spec) {
  root.replaceChildren(make("h1", "", `${spec.info.title} ${spec.info.version}`), make("p", "", spec.info.description));
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const method of Object.keys(methods)) {
      const tag = methods[method].tags?.[0] ?? "Other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method]);
    }
  }
  for (const [tag, operations] of groups) {
    root.append(make("h2", "", tag), ...operations.map(([path, method]) => operation(path, method, spec)));
  }
  root.append(make("h2", "", "Schemas"));
  for (const name of Object.keys(spec.components.schemas).sort()) {
    const block = make("details", "operation");
    const summary = make("summary");
    summary.append(make("code", "", name));
    const body = make("div");
    body.append(make("p", "", spec.components.schemas[name].description ?? ""), fields(spec.components.schemas[name], spec));
    block.append(summary, body);
    root.append(block);
  }
}

try {
  draw(await (await fetch("/openapi.json")).json());
} catch {
  root.replaceChildren(make("p", "error", "The gateway does not answer."));
}
