-- JobSubmitPlugins=lua: plan jobs that say what they train. A site that has a job_submit.lua already
-- takes over the two lines with `memplan`.

local memplan = dofile("/etc/slurm/memplan.lua")

function slurm_job_submit(job, partitions, uid)
  if not memplan.job_submit(job) then
    return slurm.ERROR
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS
