-- The request, and wrk's results as one line. Arguments: the size of the body that is sent, 0 for a GET.
local size

function init(arguments)
  size = tonumber(arguments[1])
  -- With wrk's own Host these are eight.
  wrk.headers["User-Agent"] = "bench/1.0 (loopback)"
  wrk.headers["Accept"] = "application/json"
  wrk.headers["Accept-Language"] = "en-US,en;q=0.9"
  wrk.headers["Accept-Encoding"] = "gzip, deflate"
  wrk.headers["Cookie"] = "session=0123456789abcdef0123456789abcdef"
  wrk.headers["X-Request-Id"] = "6f1c1b1e-7c2a-4d59-9a0e-3f0f4c5b2a10"
  wrk.headers["X-Tenant"] = "8d6c0f55"
  if size > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", size)
  end
  request_bytes = wrk.format()
end

function request()
  return request_bytes
end

function done(summary, latency, _)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d\n", summary.requests, failed, latency:percentile(50)))
end
