// Validates an AsyncAPI document with the official parser; warnings are errors.
//
//     node asyncapi.cjs FILE

const { Parser, fromFile } = require('@asyncapi/parser');

const ERROR = 0;
const WARNING = 1;

async function main(file) {
  const { diagnostics } = await fromFile(new Parser(), file).parse();
  const found = diagnostics.filter(({ severity }) => severity === ERROR || severity === WARNING);
  for (const { range, path, message } of found) {
    console.error(`${file}:${range.start.line + 1}: ${path.join('.')}: ${message}`);
  }
  if (found.length > 0) {
    process.exitCode = 1;
  } else {
    console.log(`${file}: OK`);
  }
}

main(process.argv[2]);
