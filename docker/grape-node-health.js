// Exits with 0 where the Grape of this container answers a lookup, which takes both its HTTP API and its DHT node.
const fs = require('fs')

const args = fs.readFileSync('/proc/1/cmdline', 'utf8').split('\0')

function option (...names) {
  for (const [at, arg] of args.entries()) {
    for (const name of names) {
      if (arg === name) return args[at + 1]
      if (arg.startsWith(`${name}=`)) return arg.slice(name.length + 1)
    }
  }
}

const host = option('-b', '--b', '--bind') || '127.0.0.1'
const port = option('--aph', '--api_port')
const name = 'grenache_health'

fetch(`http://${host}:${port}/lookup`, {
  method: 'POST',
  body: JSON.stringify({ rid: name, data: name }),
  signal: AbortSignal.timeout(5000)
})
  .then(answer => answer.json())
  .then(peers => process.exit(Array.isArray(peers) ? 0 : 1))
  .catch(error => {
    console.error(`the Grape at ${host}:${port} does not answer: ${error}`)
    process.exit(1)
  })
