// Validates Kubernetes manifests (YAML on standard input) against the real OpenAPI and CRD schemas.
// Prints one line a mistake; exit 1 when there is any, 2 for a kind that is not known here.
import fs from 'node:fs';
import yaml from 'js-yaml';

const PACKAGES = [
  [/^gateway\.networking\.k8s\.io\//, '@kubernetes-models/gateway-api'],
  [/^monitoring\.coreos\.com\//, '@kubernetes-models/prometheus-operator'],
  [/^/, 'kubernetes-models'],
];

let status = 0;
let count = 0;
for (const manifest of yaml.loadAll(fs.readFileSync(0, 'utf8'))) {
  if (!manifest) continue;
  ++count;
  const name = `${manifest.kind}/${manifest.metadata?.name}`;
  const source = PACKAGES.find(([pattern]) => pattern.test(manifest.apiVersion))[1];
  let Model;
  try {
    Model = (await import(`${source}/${manifest.apiVersion}/${manifest.kind}`))[manifest.kind];
  } catch (error) {
    console.error(`${name}: no schema for ${manifest.apiVersion} ${manifest.kind}: ${error.message}`);
    status = 2;
    continue;
  }
  try {
    new Model(manifest).validate();
  } catch (error) {
    console.error(`${name}: ${error.message}`);
    status = 1;
  }
}
console.log(`${count} manifests`);
process.exit(status);
