"""What the helpers of schedulers have in common, whatever the scheduler.

planner     the service, asked so that neither a dead nor a frozen one holds anything up
sentences   plans in sentences for people
"""
