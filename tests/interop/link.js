'use strict'
// Calls a Grape through grenache-nodejs-link and prints as JSON what came of it.

const http = require('http')
const { promisify } = require('util')

let calls = 0
const request = http.request
http.request = (...args) => {
  calls++
  return request(...args)
}

const Link = require('grenache-nodejs-link')

const INTERVAL = 50 // ms between two announces, times 0.5 … 1.5

async function main (grape) {
  const link = new Link({ grape })
  link.start()
  const announce = promisify(link.announce.bind(link))
  const lookup = promisify(link.lookup.bind(link))
  const put = promisify(link.put.bind(link))
  const get = promisify(link.get.bind(link))
  const counted = async (call) => {
    const before = calls
    const answer = await call()
    return { answer, calls: calls - before }
  }
  const until = async (condition) => {
    while (!condition()) await new Promise(resolve => setTimeout(resolve, 5))
  }

  const report = {}
  report.announce = await counted(() => announce('linked', 1337, {}))
  report.lookup = await counted(() => lookup('linked', {}))
  report.cached = await counted(() => lookup('linked', {}))
  report.shared = await counted(() => Promise.all([1, 2, 3].map(() => announce('shared', 1338, {}))))
  report.empty = await counted(() => lookup('nobody', {}).catch(err => err.message))
  report.put = await counted(() => put({ v: 'hello' }))
  report.get = await counted(async () => (await get(report.put.answer)).v)
  report.missing = await counted(() => get('00'.repeat(20)))
  report.refused = await counted(() => announce('linked', 'no port', {}))

  const before = calls
  const errors = []
  link.startAnnouncing('again', 1339, { interval: INTERVAL }, err => errors.push(err))
  await until(() => calls >= before + 4)
  const again = link.startAnnouncing('again', 1339, { interval: INTERVAL })
  link.stopAnnouncing('again', 1339)
  const stopped = calls
  // Twice the longest pause: whatever was still to come would have come.
  await new Promise(resolve => setTimeout(resolve, 3 * INTERVAL))
  report.announcing = { errors, again, afterwards: calls - stopped, found: await lookup('again', {}) }

  link.stop()
  return report
}

main(process.argv[2]).then(
  report => console.log(JSON.stringify(report)),
  err => {
    console.error(err)
    process.exitCode = 1
  }
)
