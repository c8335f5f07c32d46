// Validates custom resources, which it reads as JSON lines from standard input,
// against the schemas of their definitions. It runs in the directory in which the
// packages are installed, so its text is passed to `node --input-type=module -e`.
import { readFileSync } from 'node:fs';
import * as monitoring from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import * as keda from '@kubernetes-models/keda/keda.sh/v1alpha1';
import * as certificates from '@kubernetes-models/cert-manager/cert-manager.io/v1';
import * as gateway from '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1';

const kinds = {
  'monitoring.coreos.com/v1': monitoring,
  'keda.sh/v1alpha1': keda,
  'cert-manager.io/v1': certificates,
  'gateway.networking.k8s.io/v1': gateway,
};
const objects = readFileSync(0, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
let wrong = 0;
for (const object of objects) {
  const { apiVersion, kind, metadata } = object;
  try {
    new kinds[apiVersion][kind](object).validate();
  } catch (error) {
    wrong += 1;
    console.error(`${kind} ${metadata.name}: ${error.message}`);
  }
}
console.error(`${objects.length} custom resources, ${wrong} of them invalid`);
process.exit(wrong > 0 ? 1 : 0);
