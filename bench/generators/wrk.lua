-- Replays a request script with wrk, one thread.
-- Arguments: script file, seconds to send, mode, key prefix.
--
-- wrk closes its connections at the end, and requests in flight would be applied without being
-- counted. So `delay` holds every connection back once the time is over, and "DRAINED" is printed
-- when the last response is in; the driver then ends wrk with SIGINT, which makes it call `done`.
-- wrk passes no connection to `response`, so everything is counted per thread.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long sec; long nsec; } bench_time;
int clock_gettime(int clock, bench_time *time);
]]

local REALTIME = 0 -- the clock that wrk's own latencies are taken from
local NEVER_MS = 3600 * 1000
local time = ffi.new("bench_time")
local templates, settlements = {}, {}
local first, last, position, settled, serial, in_flight = 0, 0, 0, 0, 0, 0
local stop_after_s, mode, prefix, stopping, verified

-- Global, for `done` to read through the thread.
statuses = {}
accepted, refused, began, ended, unanswered = 0, 0, 0, 0, 0

local function now()
   ffi.C.clock_gettime(REALTIME, time)
   return tonumber(time.sec) + tonumber(time.nsec) / 1e9
end

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

local function prepare(line)
   local method, path, has_key, body = line:match("^(.-)\t(.-)\t(.-)\t(.*)$")
   local headers = { ["Host"] = wrk.headers["Host"] }
   for name, value in pairs(wrk.headers) do headers[name] = value end
   if body ~= "" then headers["Content-Type"] = "application/json" end
   if has_key ~= "1" then
      return { head = wrk.format(method, path, headers, body ~= "" and body or nil) }
   end
   headers["Idempotency-Key"] = "@KEY@"
   local text = wrk.format(method, path, headers, body)
   local from, to = text:find("@KEY@", 1, true)
   return { head = text:sub(1, from - 1), tail = text:sub(to + 1) }
end

function init(args)
   stop_after_s, mode, prefix = tonumber(args[2]), args[3], args[4]
   for line in io.lines(args[1]) do
      table.insert(templates, prepare(line))
   end
end

function request()
   if not verified then -- wrk asks for one request before it begins, and doesn't send it
      verified = true
      return templates[1].head .. (templates[1].tail and ("0" .. templates[1].tail) or "")
   end
   in_flight = in_flight + 1
   if began == 0 then began = now() end
   if settled < last then
      settled = settled + 1
      local text = settlements[settled]
      settlements[settled] = nil
      return text
   end
   position = position % #templates + 1
   local template = templates[position]
   if not template.tail then return template.head end
   serial = serial + 1
   return template.head .. prefix .. serial .. template.tail
end

local function count_items(body)
   local from, found = 1, 0
   while true do
      local _, to = body:find('{"status":20', from, true)
      if not to then break end
      found, from = found + 1, to + 1
   end
   accepted = accepted + found
   from = 1
   while true do
      local _, to = body:find('"problem":{', from, true)
      if not to then break end
      refused, from = refused + 1, to + 1
   end
end

local function settle_later(body)
   local id, wallet = body:match('^{"id":"([%x-]+)","wallet_id":"([%x-]+)"')
   last = last + 1
   settlements[last] = wrk.format(
      "POST", "/v1/wallet/" .. wallet .. "/transfers/" .. id .. "/complete", nil, nil)
end

local function print_if_drained()
   if in_flight <= 0 and not stopping then
      stopping = true
      print("DRAINED")
      io.flush()
   end
end

local function is_over()
   return began > 0 and now() - began >= stop_after_s
end

function response(status, _, body)
   in_flight = in_flight - 1
   unanswered = in_flight
   ended = now()
   statuses[status] = (statuses[status] or 0) + 1
   if mode == "items" and status == 200 then
      count_items(body)
   elseif mode == "settle" and status == 201 then
      settle_later(body)
   end
   if is_over() then print_if_drained() end
end

function delay()
   if not is_over() then return 0 end
   print_if_drained()
   return NEVER_MS
end

local function ms(us)
   return string.format("%.3f", us / 1000)
end

function done(summary, latency)
   local thread, found = threads[1], {}
   for status, count in pairs(thread:get("statuses")) do
      table.insert(found, string.format('"%d":%d', status, count))
   end
   local errors = summary.errors
   print("RESULT " .. string.format(
      '{"statuses":{%s},"items_accepted":%d,"items_refused":%d,"began_at":%.6f,"ended_at":%.6f,' ..
      '"socket_errors":%d,"unanswered":%d,"generator_cpu_s":%.3f,' ..
      '"latency":{"p50_ms":%s,"p95_ms":%s,"p99_ms":%s,"max_ms":%s}}',
      table.concat(found, ","), thread:get("accepted"), thread:get("refused"),
      thread:get("began"), thread:get("ended"),
      errors.connect + errors.read + errors.write + errors.timeout,
      math.max(thread:get("unanswered"), 0), os.clock(),
      ms(latency:percentile(50)), ms(latency:percentile(95)), ms(latency:percentile(99)),
      ms(latency.max)))
end
