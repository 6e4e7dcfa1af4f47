-- Each request with the next token of a file, round and round; says what was answered.
local tokens, count, number, path
local threads = {}
unauthorized, unavailable, other = 0, 0, 0

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  path = arguments[1]
  local file = assert(io.open(arguments[2]))
  tokens = file:read('*a')
  file:close()
  count, number = #tokens / 64, 0
end

function request()
  local start = number % count * 64
  number = number + 1
  return wrk.format('GET', path, {Cookie = 'SESSION-TOKEN=' .. string.sub(tokens, start + 1, start + 64)})
end

function response(status)
  if status == 401 then
    unauthorized = unauthorized + 1
  elseif status == 503 then
    unavailable = unavailable + 1
  elseif status ~= 200 then
    other = other + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  local thread = threads[1]
  io.write(string.format(
    '\n{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"max_ms":%f,' ..
    '"unauthorized":%d,"unavailable":%d,"other":%d,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, thread:get('unauthorized'), thread:get('unavailable'), thread:get('other'),
    errors.connect + errors.read + errors.write + errors.timeout))
end
