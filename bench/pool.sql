SELECT pgmc.acquire('pool');
SELECT pgmc.execute('SELECT 1');
SELECT pgmc.commit(), pgmc.release();
