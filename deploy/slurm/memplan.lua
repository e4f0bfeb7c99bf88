-- What job_submit.lua and cli_filter.lua share: asking the helper (`memplan slurm`) about a job.
--
-- Works with Lua 5.1 to 5.4 and needs nothing else. Nothing here raises, and where the helper or
-- the service gives no answer in time, nothing about the job changes.

local memplan = {
  -- Settings; change them after dofile().
  ask = "/opt/memplan/bin/memplan-ask",
  python = "/usr/bin/python3 -IS",
  socket = "/run/memplan/slurm.sock",
  submit_limit = 0.4, -- seconds that the controller waits for the helper
  check_limit = 25, -- seconds that sbatch waits while the helper says that it works
}

local MARK = "memplan:"
local LONGEST = 30000 -- bytes of a description: a command line takes four times as much

-- A word of the helper's protocol: no byte of it means anything to a shell.
local function encoded(text)
  local word = text:gsub("[^A-Za-z0-9_.-]", function(byte)
    return string.format("%%%02X", byte:byte())
  end)
  return word == "" and "%" or word
end

local function decoded(word)
  if word == "%" then
    return ""
  end
  return (word:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

-- Slurm gives unset fields as nil, and some as numbers.
local function text_of(value)
  return type(value) == "string" and value or ""
end

-- What a comment or the variable MEMPLAN_JOB says about the job; nil where it has none.
function memplan.annotation(comment, variable)
  local at = (" " .. text_of(comment)):find("%s" .. MARK)
  local found = at and comment:sub(at + #MARK) or text_of(variable)
  found = found:match("^%s*(.-)%s*$")
  return found ~= "" and found or nil
end

-- Whether an annotation is the description itself, and not the name of a file with it.
function memplan.is_description(annotation)
  return annotation:sub(1, 1) == "{"
end

-- Ask; the answer's lines as tables of words, or nil without an answer in time.
local function asked(verb, limit, fields)
  local words = { verb }
  for name, value in pairs(fields) do
    if text_of(value) ~= "" then
      if #value > LONGEST then
        return nil
      end
      words[#words + 1] = encoded(name)
      words[#words + 1] = encoded(value)
    end
  end
  local command = string.format(
    "exec timeout -s KILL %s %s %s %s %s %s 2>/dev/null",
    limit + 0.1, memplan.python, memplan.ask, memplan.socket, limit, table.concat(words, " ")
  )
  local pipe = io.popen(command, "r")
  if not pipe then
    return nil
  end
  local answer, ended = {}, false
  for line in pipe:lines() do
    local row = {}
    for word in line:gmatch("%S+") do
      row[#row + 1] = decoded(word)
    end
    ended = row[1] == "end"
    answer[#answer + 1] = row
  end
  pipe:close()
  return ended and answer or nil
end

local SETTABLE = {
  gres = true, features = true, exc_nodes = true,
  tres_per_node = true, tres_per_job = true, tres_per_task = true, tres_per_socket = true,
}

-- Change a job of job_submit as the helper says. Whether it may run, and why not.
local function apply(job, answer)
  for _, row in ipairs(answer) do
    local what, name, value = row[1], row[2], row[3]
    if what == "refuse" then
      slurm.log_user("memplan: %s", name)
      return false
    elseif what == "message" then
      slurm.log_user("memplan: %s", name)
    elseif what == "set" and SETTABLE[name] then
      job[name] = value
    elseif what == "env" and name:match("^MEMPLAN_[A-Z_]+$") and job.environment then
      job.environment[name] = value
    elseif what == "note" then
      local before = text_of(job.admin_comment)
      job.admin_comment = (before == "" and "" or before .. "; ") .. "memplan: " .. name
    end
  end
  return true
end

local function submit(job)
  local variable = job.environment and job.environment.MEMPLAN_JOB
  local annotation = memplan.annotation(job.comment, variable)
  if not annotation then
    return true
  end
  if not memplan.is_description(annotation) then
    slurm.log_user("memplan: cli_filter.lua, which reads %s, is not at work here; the job is " ..
      "submitted as it is.", annotation:sub(1, 100))
    return true
  end
  local answer = asked("submit", memplan.submit_limit, {
    job = annotation, partition = job.partition, features = job.features,
    exc_nodes = job.exc_nodes, tres_per_node = job.tres_per_node, tres_per_job = job.tres_per_job,
    tres_per_task = job.tres_per_task, tres_per_socket = job.tres_per_socket,
  })
  if not answer then
    slurm.log_user("memplan: no answer in time; the job is submitted as it is.")
    return true
  end
  return apply(job, answer)
end

-- For slurm_job_submit: whether the job may run. Its user has been told why not.
function memplan.job_submit(job)
  local ran, result = pcall(submit, job)
  if not ran then
    slurm.log_error("memplan: %s", tostring(result))
    return true
  end
  return result
end

local function check(options)
  local annotation = memplan.annotation(options.comment, os.getenv("MEMPLAN_JOB"))
  if not annotation then
    return true
  end
  local inline = memplan.is_description(annotation)
  local answer = asked("check", memplan.check_limit, {
    [inline and "job" or "file"] = annotation, comment = options.comment,
    partition = options.partition, features = options.constraint, tres_per_node = options.gres,
    tres_per_job = options.gpus, tres_per_task = options["gpus-per-task"],
  })
  if not answer then
    slurm.log_error("memplan: no answer in time about %s", inline and "this job" or annotation)
    return true
  end
  local comment, messages = nil, {}
  for _, row in ipairs(answer) do
    if row[1] == "refuse" then
      slurm.log_error("memplan: %s", row[2])
      return false
    elseif row[1] == "comment" then
      comment = row[2]
    elseif row[1] == "message" then
      messages[#messages + 1] = row[2]
    end
  end
  if comment then -- job_submit.lua finds it there and says the rest
    options.comment = comment
    return true
  end
  for _, message in ipairs(messages) do
    slurm.log_info("memplan: %s", message)
  end
  return true
end

-- For slurm_cli_pre_submit: whether to submit. A job file is read and put into the job's comment.
function memplan.cli_pre_submit(options)
  local ran, result = pcall(check, options)
  if not ran then
    slurm.log_error("memplan: %s", tostring(result))
    return true
  end
  return result
end

return memplan
