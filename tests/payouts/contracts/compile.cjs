// Writes contracts.json from the sources beside it: `node compile.cjs FOLDER_WITH_NODE_MODULES`.
const fs = require('fs'), path = require('path');
const solc = require(require.resolve('solc', { paths: [process.argv[2] || '.'] }));
const sources = {};
for (const name of ['Token', 'Multisend'])
  sources[`${name}.sol`] = { content: fs.readFileSync(path.join(__dirname, `${name}.sol`), 'utf8') };
const settings = { optimizer: { enabled: true, runs: 200 }, evmVersion: 'paris', metadata: { bytecodeHash: 'none' },
  outputSelection: { '*': { '*': ['evm.bytecode.object'] } } };
const out = JSON.parse(solc.compile(JSON.stringify({ language: 'Solidity', sources, settings })));
for (const error of out.errors || []) console.error(error.formattedMessage);
const made = { compiler: solc.version() };
for (const name of ['Token', 'Multisend']) made[name] = out.contracts[`${name}.sol`][name].evm.bytecode.object;
fs.writeFileSync(path.join(__dirname, 'contracts.json'), JSON.stringify(made, null, 1) + '\n');
