-- What wrk found, as one line of JSON on stderr: latencies in µs, the length in seconds, errors of all kinds.
-- There is no request() or response() here, so wrk runs no Lua while it measures.
function done(summary, latency, requests)
    local e = summary.errors
    io.stderr:write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
