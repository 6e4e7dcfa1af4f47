-- Takes turns of the cookies that are given after `--`: a session for each request that is under way at once.
local turns, turn = {}, 0
function init(args)
  for number = 1, #args do
    turns[number] = wrk.format(nil, nil, {Host = wrk.headers['Host'], Cookie = args[number]})
  end
  if #args > 0 then
    request = function()
      turn = turn % #turns + 1
      return turns[turn]
    end
  end
end

-- What wrk measured, as one line of JSON.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"refused":%d,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
