// Builds and signs transfers as tronweb does, offline: lines of JSON in, lines of JSON out.
const { TronWeb } = require(require.resolve('tronweb', { paths: [process.argv[2] || '.'] }));
const asked = require('fs').readFileSync(0, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const web = new TronWeb({ fullHost: 'http://127.0.0.1:1' });
(async () => {
  for (const one of asked) {
    const blockHeader = { ref_block_bytes: one.ref_block_bytes, ref_block_hash: one.ref_block_hash,
      expiration: one.expiration, timestamp: one.timestamp };
    const { transaction } = await web.transactionBuilder.triggerSmartContract(one.token, 'transfer(address,uint256)',
      { feeLimit: one.fee_limit, callValue: 0, txLocal: true, blockHeader },
      [{ type: 'address', value: one.to }, { type: 'uint256', value: one.units }], one.payer);
    const signed = await web.trx.sign(transaction, one.key);
    const signature = signed.signature[0].replace(/^0x/, '').toLowerCase();
    console.log(JSON.stringify({ raw: transaction.raw_data_hex, id: transaction.txID, signature }));
  }
})().catch((error) => { console.error(error); process.exit(1); });
