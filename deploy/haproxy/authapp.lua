-- The action `http-request lua.authapp ADDRESS`: asks authapp whether a request may pass. It sets the
-- identity headers of a request that may pass, and answers the others as authapp says. Whoever holds
-- the session's cookie is that person, and the app needs no more than the name: the cookie is taken out.

local SENT = {
    "accept", "authorization", "cookie", "origin", "sec-fetch-mode", "x-access-token",
    "x-requested-with", "access-control-request-method",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
}
local IDENTITY = {
    "remote-user", "remote-email", "remote-name", "remote-groups",
    "remote-amr", "remote-auth-time", "remote-assurance-level", "remote-assertion",
}
local HOP_BY_HOP = {
    connection = true, ["keep-alive"] = true, ["transfer-encoding"] = true,
    ["content-length"] = true,
}

-- HAProxy counts the values of a header from 0.
local function values(header)
    local found, n = {}, 0
    while header and header[n] do
        found[#found + 1] = header[n]
        n = n + 1
    end
    return found
end

local function without_session(cookies)
    local kept = {}
    for cookie in cookies:gmatch("[^;]+") do
        local name = cookie:match("^%s*([^=]*)")
        if not (name:match("SESSION%-TOKEN$") or name:match("DEVICE%-TOKEN$")) then
            kept[#kept + 1] = cookie
        end
    end
    return table.concat(kept, ";")
end

local function is_identity(name)
    return name:sub(1, 7) == "remote-"
end

core.register_action("authapp", { "http-req" }, function(txn, address)
    local received = txn.http:req_get_headers()
    local headers = {
        ["x-forwarded-method"] = { txn.sf:method() },
        ["x-forwarded-uri"] = { txn.sf:pathq() },
    }
    for _, name in ipairs(SENT) do
        local found = values(received[name])
        if #found > 0 then
            headers[name] = found
        end
    end

    local answer = core.httpclient():get({ url = address, headers = headers, timeout = 10000 })
    local status = answer and answer.status or 0
    if status >= 200 and status < 300 then
        for _, name in ipairs(IDENTITY) do
            txn.http:req_set_header(name, values(answer.headers[name])[1] or "")
        end
        txn.http:req_del_header("cookie")
        for _, cookies in ipairs(headers.cookie or {}) do
            txn.http:req_add_header("cookie", without_session(cookies))
        end
        return
    end

    local reply = txn:reply()
    if status < 300 then -- nobody answered
        reply:set_status(503)
        reply:add_header("retry-after", "2")
    else
        reply:set_status(status, answer.reason)
        for name, header in pairs(answer.headers) do
            if not HOP_BY_HOP[name] and not is_identity(name) then
                for _, value in ipairs(values(header)) do
                    reply:add_header(name, value)
                end
            end
        end
        reply:set_body(answer.body)
    end
    txn:done(reply)
end, 1)
