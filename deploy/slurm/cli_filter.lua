-- CliFilterPlugins=lua: read the job file that a job names, and let memplan plan it while its user
-- waits. A site that has a cli_filter.lua already takes over the two lines with `memplan`.

local memplan = dofile("/etc/slurm/memplan.lua")

function slurm_cli_setup_defaults(options, early)
  return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, offset)
  if not memplan.cli_pre_submit(options) then
    return slurm.ERROR
  end
  return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
  return slurm.SUCCESS
end

return slurm.SUCCESS
